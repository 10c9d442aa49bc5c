//! Options that would be ignored in silence, as the one that gives them a meaning is missing.
//!
//! Where one option takes the meaning from another, as `--no-multicast` does from `--interface`, both are taken: scripts give
//! all programs the same options.

use crate::cli::sources::{Setting, SettingSource, Settings};

/// Options, each with the switch without which it means nothing.
const NEEDS: [(&str, &str); 2] = [("dht-secret", "dht"), ("dht-bootstrap", "dht")];

/// Refuses options that mean nothing without another one.
///
/// A variable or a key may wait for its switch, but says so: the switch stands somewhere, on or off.
///
/// # Errors
/// One line: the option, what it lacks, and how to mend it.
pub(crate) fn refuse_ignored(settings: &Settings) -> Result<(), String> {
    for (option, switch) in NEEDS {
        let Some(setting) = settings.one(option) else { continue };
        let is_on = settings.switch(switch)?;
        let may_wait = !matches!(setting.source, SettingSource::Flag(_)) && settings.one(switch).is_some();
        if !is_on && !may_wait {
            return Err(lacks(setting, switch));
        }
    }
    Ok(())
}

fn lacks(setting: &Setting, switch: &str) -> String {
    let source = &setting.source;
    match source {
        SettingSource::Flag(flag) => format!("{flag} means nothing without --{switch}; add --{switch}"),
        SettingSource::Variable(name) => {
            let variable = format!("GPB_{}", switch.to_ascii_uppercase());
            format!("{name} means nothing without {variable}; set {variable}=1, or {variable}=0 to keep it for later")
        }
        SettingSource::File { .. } => {
            format!(
                "{source} means nothing without {switch}; add {switch} = true, or {switch} = false to keep it for later"
            )
        }
    }
}
