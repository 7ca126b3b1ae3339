//! A checker for the part of JSON schema that the description of the admin API uses.

use serde_json::Value;

/// Returns where a value is not as a schema says, or nothing. `root` is the document that references lead into.
pub fn fault(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        let Some(target) = target else { return Some(format!("{at}: {reference} leads nowhere")) };
        return fault(root, target, value, at);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let faults: Vec<_> = any.iter().map(|one| fault(root, one, value, at)).collect();
        let fits = faults.iter().filter(|fault| fault.is_none()).count();
        return (fits != 1).then(|| format!("{at}: fits {fits} of {}: {faults:?}", any.len()));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => return Some(format!("{at}: the schema has no type")),
    };
    if !types.iter().any(|kind| is(kind, value)) {
        return Some(format!("{at}: {value} is no {types:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some(format!("{at}: {value} is none of {words:?}"));
    }
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let missing = required.filter_map(Value::as_str).find(|name| value.get(name).is_none());
            if let Some(missing) = missing {
                return Some(format!("{at}: {missing} is missing"));
            }
            fields.iter().find_map(|(name, field)| {
                let at = format!("{at}.{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Bool(false)) => Some(format!("{at} is not described")),
                    (Value::Null, further @ Value::Object(_)) => fault(root, further, field, &at),
                    (Value::Null, _) => None,
                    (known, _) => fault(root, known, field, &at),
                }
            })
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            fault(root, &schema["items"], item, &format!("{at}[{index}]"))
        }),
        _ => None,
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
