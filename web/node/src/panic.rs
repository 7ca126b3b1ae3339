//! Tells of a panic where a developer looks. The instance ends with it.

use std::sync::Once;

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(text: &str);
}

static TELLS: Once = Once::new();

/// Writes panics to the console from now on.
pub(crate) fn tell() {
    TELLS.call_once(|| std::panic::set_hook(Box::new(|panic| error(&panic.to_string()))));
}
