//! `tandem dashboard`: shows the page of a running node in a browser.

use std::process::ExitCode;

use super::{args::DashboardArgs, failure::Failure, output};
use crate::{
    admin::{Client, Token},
    log,
};

/// Prints the address of the dashboard, with the token, and opens it.
pub(crate) async fn dashboard(args: DashboardArgs) -> Result<ExitCode, Failure> {
    let dir = args.target.data_dir()?;
    let Some(url) = Client::new(&dir).status().await?.admin else {
        let text =
            "the node has no admin port: start it with --admin-listen 127.0.0.1:0".to_owned();
        return Err(Failure::Usage { text });
    };
    let token = Token::kept(&dir)?;
    // Behind the `#`, a browser keeps it to itself.
    let page = format!("{url}/#token={}", token.text());
    output::print(&page).await?;
    if !args.no_open
        && let Err(error) = open::that_detached(&page)
    {
        log::note(&format!("no browser could be started ({error}): open the address above"));
    }
    Ok(ExitCode::SUCCESS)
}
