//! Options that would be ignored in silence: those without the one that gives them a meaning, and those from which another
//! one takes it.

use crate::cli::sources::{Setting, SettingSource, Settings};

/// Options, each with the switch without which it means nothing.
const NEEDS: [(&str, &str); 2] = [("dht-secret", "dht"), ("dht-bootstrap", "dht")];

/// Options of which one leaves the other nothing to do, where both are typed. What stands in a file or a variable may be
/// switched off by a flag.
const EXCLUDES: [(&str, &str); 2] = [("seed", "no-share"), ("hops", "no-multicast")];

/// Refuses options that mean nothing together with the others.
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
    for (one, other) in EXCLUDES {
        if settings.flag(one).is_some_and(|setting| setting.value != "0") && settings.flag(other).is_some() {
            return Err(format!("--{one} and --{other} exclude each other"));
        }
    }
    let discovers = settings.switch("dns-sd")? || settings.switch("dht")?;
    if settings.flag("interface").is_some() && settings.flag("no-multicast").is_some() && !discovers {
        return Err("--interface chooses where to discover, and --no-multicast leaves nothing to discover with; \
                    leave one of them out, or add --dns-sd"
            .into());
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
