//! The API against its own OpenAPI document: schemathesis makes requests of it, right and wrong ones, and compares the answers
//! with what is documented. Nothing may be a server's error, nothing undocumented, and what the document forbids must be
//! refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests that are made up for each operation, besides those at the edges of its schema.
const MADE_UP: &str = "10";
const PATIENCE: Duration = Duration::from_secs(30);

/// A controller without hosts, on loopback.
struct Controller {
    process: Child,
    url: String,
    admin: String,
    dir: tempfile::TempDir,
}

impl Controller {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Both at once, so that they are two.
        let (api, hosts) = (free(), free());
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let (state, config) = (dir.path().join("state"), dir.path().join("controller.toml"));
        let text = format!(
            "state_dir = {:?}\napi = \"{}\"\nhosts = \"{}\"\n[limits]\nboot_seconds = 2\nhost_seconds = 2\nguest_seconds = 1\n",
            state,
            address(&api),
            address(&hosts)
        );
        std::fs::write(&config, text).unwrap();
        let url = format!("http://{}", address(&api));
        drop((api, hosts));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_shunt"))
            .args(["controller", "run", "--config"])
            .arg(&config)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut controller = Self { process, url, admin: String::new(), dir };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(token) = std::fs::read_to_string(state.join("admin.token")) {
                token.trim().clone_into(&mut controller.admin);
                if controller.cli(&["tenant", "list"]).status.success() {
                    return controller;
                }
            }
            assert!(Instant::now() < end, "the controller does not come up\n{}", controller.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn cli(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_shunt"))
            .args(["--output", "json"])
            .args(arguments)
            .env("SHUNT_SERVER", &self.url)
            .env("SHUNT_TOKEN", &self.admin)
            .output()
            .unwrap()
    }

    fn say(&self, arguments: &[&str]) -> Value {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Everything that schemathesis can think of, with this token, at these operations.
    fn conforms(&self, who: &str, token: &str, more: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(schemathesis())
            .current_dir(self.dir.path())
            .arg("--config-file")
            .arg(root.join("tests/conformance/schemathesis.toml"))
            .arg("run")
            .arg(root.join("docs/reference/openapi.json"))
            .args(["--url", &self.url, "--header", &format!("Authorization: Bearer {token}")])
            .args(["--phases", "examples,coverage,fuzzing", "--max-examples", MADE_UP, "--seed", "1"])
            .args(["--continue-on-failure", "--no-color"])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "as {who}:\n{report}\n{errors}\n{}", self.log());
        // It ends well also when it tested nothing.
        let tested =
            report.lines().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<u32>().ok());
        assert!(tested.is_some_and(|tested| tested > 0), "as {who}:\n{report}");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

/// `make test` installs it there.
fn schemathesis() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/schemathesis");
    assert!(installed.exists(), "schemathesis is missing; `scripts/install-tools.sh test` installs it");
    installed
}

#[test]
fn the_api_answers_as_its_document_says() {
    let mut controller = Controller::start();
    controller.say(&["tenant", "create", "acme"]);
    controller.say(&["network", "create", "blue", "--prefix", "10.0.0.0/24", "--tenant", "acme"]);
    controller.say(&["pool", "create", "small", "--image", "tiny", "--min", "0", "--max", "2"]);
    let issued = controller.say(&["token", "create", "--role", "tenant", "--tenant", "acme"]);
    let tenant = issued["secret"].as_str().unwrap();
    controller.conforms("a tenant", tenant, &["--exclude-path", "/v1/tokens/{token}"]);
    // Tokens are not revoked in the first round: it would end with its own.
    controller.conforms(
        "an administrator",
        &controller.admin,
        &["--header", "Shunt-Tenant: acme", "--exclude-path", "/v1/tokens/{token}"],
    );
    controller.conforms("an administrator", &controller.admin, &["--include-path", "/v1/tokens/{token}"]);
    assert!(controller.process.try_wait().unwrap().is_none(), "it has ended\n{}", controller.log());
    assert!(!controller.log().contains("panicked"), "{}", controller.log());
}
