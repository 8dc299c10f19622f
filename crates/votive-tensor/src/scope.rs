//! A thread's value that holds for as long as some work runs.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Runs `work` while this thread's value is `value`. What was there comes back, also if `work` panics: a thread that waits for others may begin
/// other work meanwhile, and comes back out of it.
pub(crate) fn within<V: 'static, T>(
    key: &'static LocalKey<RefCell<V>>,
    value: V,
    work: impl FnOnce() -> T,
) -> T {
    struct Before<V: 'static>(&'static LocalKey<RefCell<V>>, Option<V>);
    impl<V> Drop for Before<V> {
        fn drop(&mut self) {
            if let Some(value) = self.1.take() {
                self.0.set(value);
            }
        }
    }
    let _before = Before(key, Some(key.replace(value)));
    work()
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a panic is what is looked into")]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_back_after_work_and_after_a_panic() {
        thread_local! {
            static VALUE: RefCell<u32> = const { RefCell::new(0) };
        }
        let value = || VALUE.with_borrow(|value| *value);
        let inside = within(&VALUE, 1, || (value(), within(&VALUE, 2, value), value()));
        assert_eq!((inside, value()), ((1, 2, 1), 0));
        let panicked = std::panic::catch_unwind(|| within(&VALUE, 3, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(value(), 0);
    }
}
