//! A whole cluster on one machine: a controller, hosts with a switch and an agent each, in a [`World`] of its own.
//!
//! Every part is a process of its own, started by the command line that operators use, so that each can be killed and
//! started again. Never here: what is done with the cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{
    CliFailure, Host, LabError, Process, Switch, SwitchOptions, World, make_fabric, wait_until,
};
use crate::workflow::fail_point::DIRECTORY_VARIABLE;

/// Where the controller serves its API, inside.
pub const API: &str = "127.0.0.1:9480";
/// Where hosts dial it.
const HOSTS: &str = "127.0.0.1:9481";
/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const CONTROLLER_DIR: &str = "/run/lab/controller";
/// Where tests put files that have the controller wait at a step; docs/JOURNEYS.md.
const FAIL_POINTS: &str = "/run/lab/controller/fail-points";

/// A cluster.
pub struct Stage {
    // Dropped in this order: the world last.
    controller: Option<Process>,
    hosts: Vec<StageHost>,
    binary: PathBuf,
    token: String,
    world: Arc<World>,
}

/// How a cluster is made.
#[derive(Clone, Debug, Default)]
pub struct StageOptions {
    /// Where images for virtual machines are: with it, hosts run machines of kind qemu too.
    pub images: Option<PathBuf>,
}

/// A host of the cluster.
pub struct StageHost {
    /// Its namespace and address.
    pub host: Host,
    /// Its switch.
    pub switch: Switch,
    agent: Option<Process>,
}

impl StageHost {
    /// Its agent, unless it was killed.
    #[must_use]
    pub fn agent(&self) -> Option<&Process> {
        self.agent.as_ref()
    }
}

impl Stage {
    /// Starts everything; when this returns all hosts are connected. `binary` is this program.
    ///
    /// # Errors
    /// What does not start, with its log.
    pub fn start(binary: &Path, hosts: u8) -> Result<Self, LabError> {
        Self::start_with(binary, hosts, &StageOptions::default())
    }

    /// The same, made as `options` say.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_with(binary: &Path, hosts: u8, options: &StageOptions) -> Result<Self, LabError> {
        let world = Arc::new(World::new()?);
        make_fabric(&world)?;
        let mut stage = Self {
            controller: None,
            hosts: Vec::new(),
            binary: binary.to_owned(),
            token: String::new(),
            world,
        };
        stage.world.run(None, "mkdir", &["-p", FAIL_POINTS])?;
        // An emulated machine on a busy one follows slowly.
        let guest_seconds = if options.images.is_some() { 90 } else { 20 };
        let config = format!(
            "state_dir = \"{CONTROLLER_DIR}/state\"\napi = \"{API}\"\nhosts = \"{HOSTS}\"\n[limits]\nguest_seconds = {guest_seconds}\n"
        );
        stage.world.write(&format!("{CONTROLLER_DIR}/controller.toml"), &config)?;
        stage.start_controller()?;
        for number in 1..=hosts {
            stage.add_host(number, options)?;
        }
        let count = usize::from(hosts);
        wait_until("all hosts to be connected", PATIENCE, || {
            let connected = stage.cli(&["host", "list"]).ok().map(|list| {
                let items = list
                    .get("hosts")
                    .or(list.get("items"))
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                items.iter().filter(|host| host.get("connected") == Some(&Value::Bool(true))).count()
            });
            Ok((connected == Some(count)).then_some(()))
        })?;
        Ok(stage)
    }

    fn add_host(&mut self, number: u8, options: &StageOptions) -> Result<(), LabError> {
        let name = format!("host-{number}");
        let host = Host::new(&self.world, &name, IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)))?;
        let with_metadata = SwitchOptions { metadata: true, ..SwitchOptions::default() };
        let switch = Switch::new(&self.world, &self.binary, &host, &with_metadata)?;
        let dir = format!("/run/lab/agent/{name}");
        self.world.run(None, "mkdir", &["-p", &dir])?;
        let machines = options.images.as_ref().map(|images| {
            format!("hypervisors = [\"netns\", \"qemu\"]\nimages = \"{}\"\n", images.display())
        });
        let config = format!(
            "physical_ip = \"{}\"\nstate_dir = \"{dir}/state\"\nswitch = \"/run/shunt/{name}.sock\"\nmetadata = \"/run/shunt/{name}.agent\"\n{}",
            host.physical_ip,
            machines.unwrap_or_default()
        );
        self.world.write(&format!("{dir}/host.toml"), &config)?;
        let answer = self.say(&["host", "token", "--name", &name])?;
        let token = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.world.write(&format!("{dir}/token"), &token)?;
        let binary = self.binary.display().to_string();
        let (config, token) = (format!("{dir}/host.toml"), format!("{dir}/token"));
        self.world.run(
            None,
            &binary,
            &["host", "join", "--config", &config, "--token", &token, "--name", &name],
        )?;
        self.hosts.push(StageHost { host, switch, agent: None });
        self.start_agent(self.hosts.len() - 1)
    }

    /// Starts the controller, after it was killed or ended; its API answers when this returns.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start_controller(&mut self) -> Result<(), LabError> {
        let binary = self.binary.display().to_string();
        let config = format!("{CONTROLLER_DIR}/controller.toml");
        let fail_points = format!("{DIRECTORY_VARIABLE}={FAIL_POINTS}");
        let arguments = [&fail_points, &binary, "controller", "run", "--config", &config];
        let mut process = self.world.spawn(None, "env", &arguments)?;
        let token = self.world.outside(format!("{CONTROLLER_DIR}/state/admin.token"));
        wait_until("the controller to be ready", PATIENCE, || {
            if let Some(status) = process.ended() {
                let command = "shunt controller run".to_owned();
                return Err(LabError::Failed { command, status, output: process.output() });
            }
            if !process.output().contains("the controller is ready") {
                return Ok(None);
            }
            std::fs::read_to_string(&token).map(Some).map_err(LabError::file("read", &token))
        })
        .map(|text| text.trim().clone_into(&mut self.token))?;
        self.controller = Some(process);
        Ok(())
    }

    /// Where files have the controller wait at a step, as [`FailPoint::file`](crate::workflow::FailPoint::file) names them;
    /// nowhere in a build without debug assertions.
    #[must_use]
    pub fn fail_points(&self) -> PathBuf {
        self.world.outside(FAIL_POINTS)
    }

    /// The controller's store, to be looked into while no controller runs.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.world.outside(format!("{CONTROLLER_DIR}/state/store.redb"))
    }

    /// Kills the controller as a crash would.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// Starts a host's agent, after it was killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, place: usize) -> Result<(), LabError> {
        let binary = self.binary.display().to_string();
        let Some(host) = self.hosts.get_mut(place) else { return Ok(()) };
        let config = format!("/run/lab/agent/{}/host.toml", host.host.name);
        host.agent = Some(self.world.spawn(None, &binary, &["host", "run", "--config", &config])?);
        Ok(())
    }

    /// Kills a host's agent as a crash would; its guests live on.
    pub fn kill_agent(&mut self, place: usize) {
        if let Some(host) = self.hosts.get_mut(place) {
            host.agent = None;
        }
    }

    /// The controller, unless it was killed.
    #[must_use]
    pub fn controller(&self) -> Option<&Process> {
        self.controller.as_ref()
    }

    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[StageHost] {
        &self.hosts
    }

    /// The hosts, to do something to their switches.
    pub fn hosts_mut(&mut self) -> &mut [StageHost] {
        &mut self.hosts
    }

    /// The world that it all lives in.
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The token with all rights.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// `shunt ARGUMENTS --output json` at this cluster, as the administrator.
    ///
    /// # Errors
    /// [`CliFailure`] unless it exits with 0 and prints JSON or nothing.
    pub fn cli(&self, arguments: &[&str]) -> Result<Value, CliFailure> {
        self.cli_as(&self.token, arguments)
    }

    /// The same, as whoever has this token.
    ///
    /// # Errors
    /// As [`Stage::cli`].
    pub fn cli_as(&self, token: &str, arguments: &[&str]) -> Result<Value, CliFailure> {
        let failure = |code, stderr| CliFailure { verb: arguments.join(" "), code, stderr };
        let binary = self.binary.display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let output = self
            .world
            .command(None, &binary, &all)
            .env("SHUNT_SERVER", format!("http://{API}"))
            .env("SHUNT_TOKEN", token)
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

    fn say(&self, arguments: &[&str]) -> Result<Value, LabError> {
        self.cli(arguments).map_err(|error| LabError::Cli(error.to_string()))
    }

    /// What the controller and the hosts' agents have logged since their last starts.
    #[must_use]
    pub fn logs(&self) -> String {
        let controller = self.controller.as_ref().map(Process::output).unwrap_or_default();
        let agents = self.hosts.iter().map(|host| {
            let log = host.agent.as_ref().map(Process::output).unwrap_or_default();
            format!("== agent of {}\n{log}", host.host.name)
        });
        format!("== controller\n{controller}\n{}", agents.collect::<Vec<_>>().join("\n"))
    }

    /// Runs a program inside a guest: in its namespaces, as its root.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn inside(&self, port: &str, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        self.world.run(Some(port), program, arguments)
    }

    /// Ends all in order.
    pub fn end(mut self) {
        for host in &mut self.hosts {
            if let Some(agent) = host.agent.take() {
                agent.signal(Signal::TERM);
            }
        }
        if let Some(controller) = self.controller.take() {
            controller.signal(Signal::TERM);
        }
    }
}
