//! The command line.

use crate::{
    agent::{self, Settings},
    init,
    linux::{Linux, Renewal},
    os::Os,
};
use clap::{Args, Parser, Subcommand};
use std::{
    ffi::OsString,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// The agent for guests of Shunt.
#[derive(Debug, Parser)]
#[command(name = "shunt-guest", version, disable_help_subcommand = true)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read the configuration from the metadata service, apply it, report, and go on watching.
    Run(RunOptions),
    /// Be process 1 of a guest that is made of namespaces. The hypervisor calls this; nobody else should.
    Init(init::InitOptions),
    /// Be process 1 of a virtual machine, as its kernel starts it. Nobody else should call this.
    Boot(init::machine::MachineOptions),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// Directory that holds the system's files; with another one than / the kernel's host name stays.
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Interface whose link tells that the network has changed.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Beginning of the metadata service's addresses.
    #[arg(long, default_value = "http://169.254.169.254", value_name = "URL")]
    metadata: String,
    /// udhcpc's pid file, for systems whose DHCP client is udhcpc: it is signalled when the link changes.
    #[arg(long, value_name = "FILE", conflicts_with = "renew_command")]
    udhcpc_pid_file: Option<PathBuf>,
    /// File that exists while there is a lease and is written with each new one. Without it the agent looks at the
    /// address that it would speak from.
    #[arg(long, value_name = "FILE")]
    lease_file: Option<PathBuf>,
    /// How often the link is looked at, in milliseconds.
    #[arg(long, default_value_t = 5, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1000))]
    carrier_poll_ms: u64,
    /// How often life is reported, in seconds.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    heartbeat_seconds: u64,
    /// How long the customer's script may run, in seconds.
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86400))]
    script_limit_seconds: u64,
    /// Program, with its arguments, that has the lease renewed when the link came back; for systems that do not do it by
    /// themselves. The last option.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "CMD")]
    renew_command: Option<Vec<String>>,
}

/// Reads the command line (the first word is the program's name) and does what it says. Status 2 when it is wrong.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Options::try_parse_from(words) {
        Ok(Options { verb: Verb::Run(options) }) => run(options),
        Ok(Options { verb: Verb::Init(options) }) => init::run(&options).map_err(|error| error.to_string()),
        Ok(Options { verb: Verb::Boot(options) }) => {
            init::machine::run(&options).map_err(|error| error.to_string())
        }
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "shunt-guest: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: RunOptions) -> Result<(), String> {
    let service = service(&options.metadata).ok_or_else(|| {
        format!("--metadata {}: this is not http:// with an address and perhaps a port", options.metadata)
    })?;
    if options.interface.is_empty()
        || options.interface.contains(['/', '\0'])
        || options.interface.starts_with('.')
    {
        return Err(format!("--interface {}: this is not an interface's name", options.interface));
    }
    let renewal = match (options.udhcpc_pid_file, options.renew_command) {
        (Some(file), _) => Renewal::Udhcpc(file),
        (None, Some(command)) => Renewal::Command(command),
        (None, None) => Renewal::Nothing,
    };
    let os = Arc::new(Linux::new(&options.root, renewal).map_err(|error| error.to_string())?);
    let settings = Settings {
        metadata: options.metadata,
        service,
        interface: PathBuf::from("/sys/class/net").join(options.interface),
        carrier_poll: Duration::from_millis(options.carrier_poll_ms),
        heartbeat: Duration::from_secs(options.heartbeat_seconds),
        script_limit: Duration::from_secs(options.script_limit_seconds),
        lease_file: options.lease_file,
    };
    let actor: Arc<dyn Os> = Arc::clone(&os) as Arc<dyn Os>;
    agent::run(&settings, &actor, os.tree());
    Ok(())
}

/// The address that a URL names; names are not resolved, for there may be no network to ask.
fn service(url: &str) -> Option<SocketAddr> {
    let uri: ureq::http::Uri = url.parse().ok()?;
    let plain = uri.scheme_str() == Some("http");
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = host.parse().ok()?;
    plain.then(|| SocketAddr::new(address, uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_an_address() {
        assert_eq!(service("http://169.254.169.254"), Some("169.254.169.254:80".parse().unwrap()));
        assert_eq!(service("http://[fd00::1]:8080/x"), Some("[fd00::1]:8080".parse().unwrap()));
        for wrong in ["https://169.254.169.254", "169.254.169.254", "http://metadata", "", "http://"] {
            assert_eq!(service(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_renewal_command_takes_the_rest() {
        let words = "shunt-guest run --interface eth0 --renew-command dhclient -4 eth0";
        let options = Options::try_parse_from(words.split(' ')).unwrap();
        let Verb::Run(run) = options.verb else { panic!("{options:?}") };
        assert_eq!(run.renew_command.unwrap(), ["dhclient", "-4", "eth0"]);
    }
}
