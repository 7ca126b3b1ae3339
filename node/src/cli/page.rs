//! The page of a running node, and a browser for it.

use std::path::Path;

use super::failure::Failure;
use crate::{
    admin::{Client, Token},
    log,
};

/// The address of the dashboard of a running node, with the token.
pub(crate) async fn page_of(dir: &Path) -> Result<String, Failure> {
    let Some(url) = Client::new(dir).status().await?.admin else {
        let text =
            "the node has no admin port: start it with --admin-listen 127.0.0.1:0".to_owned();
        return Err(Failure::Usage { text });
    };
    // Behind the `#`, a browser keeps it to itself.
    Ok(format!("{url}/#token={}", Token::kept(dir)?.text()))
}

/// Opens a page in a browser.
pub(crate) fn open_page(page: &str) {
    if let Err(error) = open::that_detached(page) {
        log::note(&format!("no browser could be started ({error}): open the address above"));
    }
}
