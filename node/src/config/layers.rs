//! The values of a configuration, each with where it came from.
//!
//! # Invariants
//!
//! * A flag wins over the environment, the environment over the file, the file over the default.
//! * An empty environment variable is one that is not set.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    check::{ConfigError, MAX_SLIPS, slips},
    file,
    key::{Default, Flags, Key, Kind},
    origin::{Given, Origin, Value},
};

/// Names the configuration file, where there is no `--config`.
const FILE_VARIABLE: &str = "TANDEM_CONFIG";

/// Every value that is set, by key. What is not set and has no default is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    values: BTreeMap<Key, Given>,
    /// The directory that `~` stands for.
    home: Option<PathBuf>,
    has_file: bool,
    /// Environment variables that look like settings and are none.
    unknown: Vec<String>,
}

impl Layers {
    /// Puts the layers of this process together.
    pub(crate) fn gather(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Self::gather_from(file, flags, names, |name| std::env::var_os(name))
    }

    /// Puts the layers together, the environment having variables of these names, whose values `variable`
    /// knows.
    pub(crate) fn gather_from(
        file: Option<&Path>,
        flags: &Flags,
        names: impl Iterator<Item = String>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let unknown = unknown_variables(names)?;
        let home = home(variable);
        let mut values = defaults(variable);
        let file = file.map(Path::to_owned).or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
        let has_file = file.is_some();
        if let Some(file) = file {
            // A shell expands the tilde of `--config ~/f`, and not that of `--config=~/f`.
            let expanded = file.to_str().and_then(|text| expand(text, home.as_deref()).ok());
            values.extend(file::read(&expanded.unwrap_or(file))?);
        }
        for key in Key::ALL {
            let name = key.variable();
            let Some(text) = variable(&name) else { continue };
            let Ok(text) = text.into_string() else {
                return Err(ConfigError::NotText { variable: name });
            };
            let origin = Origin::Env(name);
            values.insert(key, Given { value: from_variable(key, text), origin });
        }
        for (key, texts) in &flags.given {
            let origin = Origin::Flag(key.spec().flag);
            values.insert(*key, Given { value: from_flag(*key, texts), origin });
        }
        Ok(Self { values, home, has_file, unknown })
    }

    /// Takes the value of one key over from others.
    pub(crate) fn take_over(&mut self, key: Key, from: &Self) {
        match from.values.get(&key) {
            Some(given) => self.values.insert(key, given.clone()),
            None => self.values.remove(&key),
        };
    }

    /// Puts more values over these.
    #[cfg(test)]
    pub(crate) fn extend_for_test(&mut self, given: Vec<(Key, Given)>) {
        self.values.extend(given);
    }

    /// `true` if some of it comes from a file, or may, once the file has something in it.
    pub(crate) const fn has_file(&self) -> bool {
        self.has_file
    }

    /// Environment variables that look like settings and are none.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The path that a text means, in which `~` is the home directory.
    pub(crate) fn path(&self, text: &str) -> Result<PathBuf, String> {
        expand(text, self.home.as_deref())
    }

    /// The value that is set for a key.
    pub(crate) fn get(&self, key: Key) -> Option<&Given> {
        self.values.get(&key)
    }
}

fn defaults(variable: impl Fn(&str) -> Option<OsString>) -> BTreeMap<Key, Given> {
    let text = |key: Key| match key.spec().default {
        Default::Is(text) => Some(text.to_owned()),
        Default::Nothing => None,
        Default::UserDataDir => user_data_dir(&variable),
    };
    let given =
        |key: Key, text: String| Given { value: from_variable(key, text), origin: Origin::Default };
    Key::ALL.into_iter().filter_map(|key| Some((key, given(key, text(key)?)))).collect()
}

/// The variables that begin as a setting's does and are none. One that is nearly one is a slip; others are
/// there for other reasons: Kubernetes, for one, makes some up from the name of a service.
fn unknown_variables(names: impl Iterator<Item = String>) -> Result<Vec<String>, ConfigError> {
    let known: Vec<String> =
        Key::ALL.into_iter().map(Key::variable).chain([FILE_VARIABLE.to_owned()]).collect();
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with("TANDEM_") && !known.contains(name)).collect();
    unknown.sort();
    for variable in &unknown {
        let near = known.iter().find(|known| slips(variable, known) <= MAX_SLIPS);
        if let Some(meant) = near {
            let (variable, meant) = (variable.clone(), meant.clone());
            return Err(ConfigError::UnknownVariable { variable, meant });
        }
    }
    Ok(unknown)
}

/// The home directory of the user.
fn home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute())
}

/// The path that a text means: as a shell would read it, since a variable, a file and `--flag=~/x` never meet
/// one.
fn expand(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    match text.strip_prefix('~') {
        None if text.is_empty() => Err("the path is empty".to_owned()),
        None => Ok(PathBuf::from(text)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match home {
            Some(home) => Ok(home.join(rest.trim_start_matches('/'))),
            None => Err(format!(
                "{text:?} is in the home directory, and HOME is not set: write the whole path"
            )),
        },
        Some(_) => Err(format!(
            "{text:?} begins with ~: write the whole path, or ./{text} for a file of that name here"
        )),
    }
}

/// Where programs of this user keep their data. Source: XDG Base Directory Specification 0.8.
fn user_data_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = absolute("XDG_DATA_HOME")
        .or_else(|| home(variable).map(|home| home.join(".local").join("share")))?;
    base.join("tandem").into_os_string().into_string().ok()
}

fn from_variable(key: Key, text: String) -> Value {
    match key.spec().kind {
        Kind::List => Value::Many(text.split(',').map(|item| item.trim().to_owned()).collect()),
        Kind::Text | Kind::Number | Kind::Switch => Value::One(text),
    }
}

fn from_flag(key: Key, texts: &[String]) -> Value {
    match (key.spec().kind, texts) {
        (Kind::List, texts) => Value::Many(texts.to_vec()),
        // The parser lets no flag of these kinds be given twice.
        (Kind::Text | Kind::Number | Kind::Switch, texts) => Value::One(texts.concat()),
    }
}
