//! A timer whose deadline moves with every request.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

/// A timer of a connection. It is set anew only when it fires before the deadline of that time,
/// which is seldom: to set one takes a lock of the runtime.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether the deadline has passed; if not, the task is woken then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            // tokio wakes the task for a deadline that has passed when it is set: who asks for one
            // each time that it is woken would never sleep.
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_move_both_ways() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = Timer::default();
        assert!(
            poll_fn(|cx| Poll::Ready(timer.poll(cx, at(60))))
                .await
                .is_pending()
        );
        // Later: nobody is woken for the old one.
        poll_fn(|cx| timer.poll(cx, at(90))).await;
        assert_eq!(start.elapsed().as_secs(), 90);
        assert!(
            poll_fn(|cx| Poll::Ready(timer.poll(cx, at(200))))
                .await
                .is_pending()
        );
        // Earlier.
        poll_fn(|cx| timer.poll(cx, at(100))).await;
        assert_eq!(start.elapsed().as_secs(), 100);
        // Past.
        poll_fn(|cx| timer.poll(cx, at(50))).await;
        assert_eq!(start.elapsed().as_secs(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_wakes_nobody() {
        let start = Instant::now();
        let mut timer = Timer::default();
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            assert!(polls < 10, "the task is woken for nothing");
            assert!(timer.poll(cx, start + Duration::from_secs(5)).is_ready());
            timer.poll(cx, start + Duration::from_secs(60))
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
