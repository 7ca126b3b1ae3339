//! `tandem dashboard`: shows the page of a running node in a browser.

use std::process::ExitCode;

use super::{
    args::DashboardArgs,
    failure::Failure,
    output,
    page::{open_page, page_of},
};

/// Prints the address of the dashboard, with the token, and opens it.
pub(crate) async fn dashboard(args: DashboardArgs) -> Result<ExitCode, Failure> {
    let page = page_of(&args.target.data_dir()?).await?;
    output::print(&page).await?;
    if !args.no_open {
        open_page(&page);
    }
    Ok(ExitCode::SUCCESS)
}
