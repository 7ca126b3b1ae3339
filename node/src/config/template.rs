//! A configuration file to begin with, and the description of such files for editors.
//!
//! # Invariants
//!
//! * Both are made from the table in [`key`](super::key), so a new setting is in them.

use serde_json::{Map, Value as Json, json};

use super::{
    key::{Default, Key, Kind},
    origin::Value,
    render::render,
};

/// Longest line of a comment, in letters.
const WIDTH: usize = 100;

/// A file in which every setting stands in a comment: what it does, and its default or an example of its form.
pub(crate) fn commented() -> String {
    let mut text = "# Settings of a Tandem node. Take the # away from a line to set it; tandem config shows what is in force.\n"
        .to_owned();
    for key in Key::ALL {
        let spec = key.spec();
        text.push('\n');
        for line in wrapped(spec.help) {
            text.push_str(&format!("# {line}\n"));
        }
        let value = match spec.default.text() {
            Some(default) => render(spec.kind, &of_text(spec.kind, default)),
            None if spec.kind == Kind::List => "[]".to_owned(),
            None => "\"\"".to_owned(),
        };
        text.push_str(&format!("# {} = {value}\n", spec.name));
    }
    text
}

/// The description of configuration files. Source: JSON schema, draft 2020-12.
pub(crate) fn schema() -> Json {
    let properties: Map<String, Json> =
        Key::ALL.into_iter().map(|key| (key.spec().name.to_owned(), property(key))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a Tandem node",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: Key) -> Json {
    let spec = key.spec();
    let mut property = match spec.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::List => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Switch => json!({"enum": [true, false, "on", "off"]}),
    };
    property["description"] = spec.help.into();
    if let Default::Is(default) = spec.default {
        property["default"] = match of_text(spec.kind, default) {
            Value::Many(items) => items.into(),
            Value::One(text) if spec.kind == Kind::Number => {
                text.parse::<u64>().map_or(Json::Null, Json::from)
            }
            Value::One(text) => text.into(),
        };
    }
    if spec.kind != Kind::Switch && !key.words().is_empty() {
        property["examples"] = key.words().into();
    }
    property
}

fn of_text(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::List => Value::Many(text.split(',').map(str::to_owned).collect()),
        Kind::Text | Kind::Number | Kind::Switch => Value::One(text.to_owned()),
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_full = lines.last().is_some_and(|line| line.len() + word.len() > WIDTH);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Flags, Layers, Settings, file},
        *,
    };

    // Issue 12, 6.
    #[test]
    fn a_file_to_begin_with_says_what_holds_without_it() {
        let text = commented();
        assert_eq!(file::parse("f", &text).unwrap(), [], "everything stands in comments");
        let is_setting = |line: &&str| {
            line.strip_prefix("# ")
                .and_then(|line| line.split_once(" = "))
                .is_some_and(|(name, _)| Key::named(name).is_some())
        };
        let settings: Vec<&str> = text.lines().filter(is_setting).collect();
        assert_eq!(settings.len(), Key::ALL.len());
        let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
        let flags = Flags::data_dir(None);
        let layers = || Layers::gather_from(None, &flags, std::iter::empty(), home).unwrap();
        let set: String = settings
            .iter()
            .filter(|line| !line.ends_with("= \"\""))
            .map(|line| format!("{}\n", &line[2..]))
            .collect();
        let mut filled = layers();
        filled.extend_for_test(file::parse("f", &set).unwrap());
        let (filled, usual) =
            (Settings::check(&filled).unwrap(), Settings::check(&layers()).unwrap());
        assert_eq!(format!("{filled:?}"), format!("{usual:?}"));
        assert!(text.lines().all(|line| line.len() <= 140), "{text}");
    }

    // Issue 12, 6.
    #[test]
    fn the_schema_has_every_setting_with_its_kind_and_default() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), Key::ALL.len());
        assert_eq!(properties["max_inbound"]["default"], 2_400);
        assert_eq!(properties["relay"]["enum"], json!([true, false, "on", "off"]));
        assert_eq!(properties["services"]["default"], json!(["status"]));
        for (name, property) in properties {
            let is_null = property.get("default").is_some_and(Json::is_null);
            assert!(!is_null && property["description"].is_string(), "{name}");
        }
    }
}
