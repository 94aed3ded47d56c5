//! A `shunt vswitch run` on a host of the laboratory, driven by the same command line that a person uses.

use super::{Host, LabError, Process, World, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// What differs between switches; the rest of the configuration follows from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchOptions {
    /// `vxlan` or `geneve`.
    pub encapsulation: &'static str,
    /// Worker threads.
    pub workers: u8,
    /// `adaptive`, `busy` or `sleep`.
    pub poll: &'static str,
    /// Whether it hands metadata connections on to an agent at [`Switch::agent`].
    pub metadata: bool,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        Self { encapsulation: "vxlan", workers: 1, poll: "adaptive", metadata: false }
    }
}

/// A refusal or failure of the command line.
#[derive(Debug, thiserror::Error)]
#[error("`shunt {verb}` exited with {code:?}: {stderr}")]
pub struct CliFailure {
    /// The verb and its arguments.
    pub verb: String,
    /// Exit code; none when a signal ended it or it could not be started.
    pub code: Option<i32>,
    /// What it printed on standard error: `{"error": {"what","where","remedy"}}` when all is well.
    pub stderr: String,
}

impl CliFailure {
    /// A member of the error object: `what`, `where` or `remedy`.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<String> {
        let error: Value = serde_json::from_str(self.stderr.trim()).ok()?;
        error.get("error")?.get(name)?.as_str().map(str::to_owned)
    }
}

/// A switch process on a host.
#[derive(Debug)]
pub struct Switch {
    world: Arc<World>,
    binary: PathBuf,
    host: String,
    process: Option<Process>,
}

impl Switch {
    /// Writes the configuration and starts the switch; it answers when this returns.
    ///
    /// # Errors
    /// As [`Switch::start`].
    pub fn new(
        world: &Arc<World>,
        binary: &Path,
        host: &Host,
        options: &SwitchOptions,
    ) -> Result<Self, LabError> {
        let mut switch = Self {
            world: Arc::clone(world),
            binary: binary.to_owned(),
            host: host.name.clone(),
            process: None,
        };
        let dir = switch.directory();
        world.run(None, "mkdir", &["-p", &dir])?;
        let mut config = format!("state_dir = \"{dir}/state\"\nsocket = \"{}\"\n", switch.socket_inside());
        if options.metadata {
            let _ = writeln!(config, "metadata = \"{}\"", switch.agent_inside());
        }
        let _ = write!(
            config,
            "[underlay]\nphysical_ip = \"{}\"\nencapsulation = \"{}\"\nmtu = 1600\n[workers]\ncount = {}\npoll = \"{}\"\n",
            host.physical_ip, options.encapsulation, options.workers, options.poll
        );
        world.write(&switch.config_inside(), &config)?;
        switch.start()?;
        Ok(switch)
    }

    /// Starts the process, after [`Switch::kill`] or [`Switch::terminate`].
    ///
    /// # Errors
    /// `Failed` with its log when it ends at once; `TimedOut` when its socket does not appear.
    pub fn start(&mut self) -> Result<(), LabError> {
        let config = self.config_inside();
        // A socket file that a killed switch left must not pass for the new one's.
        let _ = std::fs::remove_file(self.socket());
        let binary = self.binary.display().to_string();
        let mut process =
            self.world.spawn(Some(&self.host), &binary, &["vswitch", "run", "--config", &config])?;
        let socket = self.socket();
        wait_until(&format!("the switch of {} to be ready", self.host), Duration::from_secs(30), || {
            if let Some(status) = process.ended() {
                let command = "shunt vswitch run".to_owned();
                return Err(LabError::Failed { command, status, output: process.output() });
            }
            Ok(socket.exists().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills the process as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    /// `TimedOut` when it does not.
    pub fn terminate(&mut self) -> Result<(), LabError> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// The running process.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Its control socket, for our own process.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.world.outside(self.socket_inside())
    }

    /// Where it looks for a host agent, for our own process to listen at.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.world.outside(self.agent_inside())
    }

    /// Its configuration file, as a path of the world.
    #[must_use]
    pub fn config_inside(&self) -> String {
        format!("{}/vswitch.toml", self.directory())
    }

    /// Its state directory, for our own process.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.world.outside(format!("{}/state", self.directory()))
    }

    /// Runs `shunt vswitch VERB… --output json` and gives what it prints; `Null` when it prints nothing.
    ///
    /// # Errors
    /// [`CliFailure`] unless it exits with 0 and prints JSON or nothing.
    pub fn cli(&self, verb: &[&str]) -> Result<Value, CliFailure> {
        let failure = |code, stderr| CliFailure { verb: format!("vswitch {}", verb.join(" ")), code, stderr };
        let output = Command::new(&self.binary)
            .arg("vswitch")
            .args(verb)
            .arg("--socket")
            .arg(self.socket())
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failure(None, error.to_string()))?;
        if !output.status.success() {
            return Err(failure(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| failure(Some(0), format!("{error} in: {text}")))
    }

    /// [`Switch::cli`] with the words of one line; no argument may hold a blank.
    ///
    /// # Errors
    /// As [`Switch::cli`].
    pub fn say(&self, line: &str) -> Result<Value, CliFailure> {
        self.cli(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// How many packets were dropped for `reason`, over all ports (or at `port`).
    ///
    /// # Errors
    /// As [`Switch::cli`].
    pub fn drops(&self, reason: &str, port: Option<&str>) -> Result<u64, CliFailure> {
        let answer = self.cli(&["drops"])?;
        let list = answer.get("drops").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is =
            |entry: &Value, key: &str, value: &str| entry.get(key).and_then(Value::as_str) == Some(value);
        let wanted = list
            .iter()
            .filter(|entry| is(entry, "reason", reason) && port.is_none_or(|p| is(entry, "port", p)));
        Ok(wanted.filter_map(|entry| entry.get("packets")?.as_u64()).sum())
    }

    fn directory(&self) -> String {
        format!("/run/lab/switch/{}", self.host)
    }

    fn agent_inside(&self) -> String {
        format!("/run/shunt/{}.agent", self.host)
    }

    fn socket_inside(&self) -> String {
        format!("/run/shunt/{}.sock", self.host)
    }
}
