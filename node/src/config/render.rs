//! Prints a configuration as a file that would give it, with the origin of each value.

use std::fmt;

use super::{
    key::{Key, Kind},
    layers::Layers,
    origin::Value,
};

impl fmt::Display for Layers {
    /// TOML; a key without a value stands in a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in Key::ALL {
            let spec = key.spec();
            match self.get(key) {
                Some(given) => {
                    let value = render(spec.kind, &given.value);
                    writeln!(f, "{} = {value} # {}", spec.name, given.origin)?;
                }
                None if spec.kind == Kind::List => writeln!(f, "{} = [] # default", spec.name)?,
                None => writeln!(f, "# {} is not set", spec.name)?,
            }
        }
        for variable in self.unknown() {
            writeln!(f, "# {variable} is set in the environment, and is no setting")?;
        }
        Ok(())
    }
}

pub(super) fn render(kind: Kind, value: &Value) -> String {
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    match (kind, value) {
        (_, Value::Many(items)) => {
            format!("[{}]", items.iter().map(quoted).collect::<Vec<_>>().join(", "))
        }
        (Kind::Number, Value::One(text)) => text.clone(),
        (Kind::Text | Kind::List | Kind::Switch, Value::One(text)) => quoted(text),
    }
}
