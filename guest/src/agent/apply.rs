//! Applies one configuration: everything that can be done is done, and all that failed is told.

use super::Flow;
use crate::{
    config::GuestConfig,
    os::{OsError, ScriptEnd},
};

impl Flow<'_> {
    /// Applies a configuration and gives what failed, if anything did. Of a placeholder's only the machine name counts:
    /// its owner is still to come.
    pub(super) fn apply(&mut self, config: &GuestConfig) -> Option<String> {
        let mut failures = Vec::new();
        let mut note = |done: Result<(), OsError>| {
            if let Err(error) = done {
                failures.push(error.to_string());
            }
        };
        note(self.os.set_hostname(&config.hostname));
        if config.partial {
            return told(&failures);
        }
        if let Some(zone) = &config.time_zone {
            note(self.os.set_time_zone(zone));
        }
        if let Some(user) = &config.user {
            note(self.os.set_user(user));
        }
        for file in &config.files {
            note(self.os.write_file(file));
        }
        // A script may rely on all that comes before it.
        if let (Some(script), true) = (&config.script, failures.is_empty()) {
            failures.extend(self.script(script, config.generation));
        }
        told(&failures)
    }

    /// Runs the script, once per generation whatever happens to the agent meanwhile.
    fn script(&mut self, script: &str, generation: u64) -> Option<String> {
        if self.state.script_started == Some(generation) {
            return Some("the script was interrupted by a restart and is not run twice".to_owned());
        }
        self.state.script_started = Some(generation);
        if let Err(error) = self.state.save(self.tree) {
            // Without the note it could be run twice.
            return Some(format!("the script was not run: {error}"));
        }
        let limit = self.settings.script_limit;
        match self.os.run_script(script, generation, limit) {
            Ok(ScriptEnd::Well) => None,
            Ok(ScriptEnd::Badly { how, output }) => Some(format!("the script ended with {how}: {output}")),
            Ok(ScriptEnd::Late { output }) => {
                Some(format!("the script was stopped after {} s: {output}", limit.as_secs()))
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

fn told(failures: &[String]) -> Option<String> {
    (!failures.is_empty()).then(|| failures.join("; "))
}
