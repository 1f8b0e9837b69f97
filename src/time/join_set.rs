//! The tasks of a set, until a deadline.

use super::{Instant, timeout_at};
use crate::task::{JoinError, JoinSet};

impl<T> JoinSet<T> {
    /// Awaits all tasks until `deadline`, aborts those that have not ended by then, and waits until
    /// their futures are gone. Gives all outcomes in the order in which they come; of those that were
    /// aborted it is a [`JoinError`] that says so.
    ///
    /// Without a deadline (`None`) it waits for as long as it takes. Dropping the future aborts the tasks
    /// that are left.
    ///
    /// ```
    /// use quoit::task::JoinSet;
    /// use quoit::time::{Instant, sleep};
    /// use std::time::Duration;
    ///
    /// # quoit::runtime::run(async {
    /// let mut set = JoinSet::new();
    /// set.spawn(sleep(Duration::ZERO));
    /// set.spawn(sleep(Duration::MAX));
    /// let outcomes = set.join_all_by(Instant::now() + Duration::from_millis(5)).await;
    /// assert!(outcomes[0].is_ok());
    /// assert!(outcomes[1].as_ref().is_err_and(|error| error.is_cancelled()));
    /// # }).unwrap();
    /// ```
    pub async fn join_all_by(
        mut self,
        deadline: impl Into<Option<Instant>>,
    ) -> Vec<Result<T, JoinError>> {
        let mut outcomes = Vec::with_capacity(self.len());
        if let Some(deadline) = deadline.into()
            && timeout_at(deadline, self.join_rest(&mut outcomes)).await.is_err()
        {
            self.abort_all();
        }
        self.join_rest(&mut outcomes).await;
        outcomes
    }

    async fn join_rest(&mut self, outcomes: &mut Vec<Result<T, JoinError>>) {
        while let Some(outcome) = self.join_next().await {
            outcomes.push(outcome);
        }
    }
}
