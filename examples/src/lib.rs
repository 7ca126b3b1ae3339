//! The one thing that the applications share: an error that reads well where a program ends with it.

use std::{error::Error, fmt};

/// Any error, told as one line with its causes.
///
/// It is made from everything that becomes a boxed error, so `?` takes it where `main` returns it.
pub struct Failure(Box<dyn Error + Send + Sync>);

impl<E> From<E> for Failure
where
    Box<dyn Error + Send + Sync>: From<E>,
{
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
