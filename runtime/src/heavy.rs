//! Work that takes long and waits for nothing.

use tokio::task::JoinError;

/// Runs `work` on a thread of its own kind, so that no other task waits for it. In WebAssembly, which has one thread,
/// all of them do.
///
/// # Errors
///
/// The error of tokio when `work` panics.
///
/// # Cancel safety
///
/// If the future is dropped, the work goes on, and its outcome goes nowhere.
pub async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(not(target_family = "wasm"))]
    return tokio::task::spawn_blocking(work).await;
    #[cfg(target_family = "wasm")]
    return Ok(work());
}
