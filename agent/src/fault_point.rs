//! Fault points: places at which a run with faults may end or hold up this process (docs/faults.md lists them). Without the
//! feature `failpoints` a point is nothing at all.

/// Reaches a point. With the feature, `FAILPOINTS` in the environment says what happens there: `point=return` aborts the
/// process on the spot, `point=3*off->return` the fourth time, `point=sleep(5000)` holds it up.
#[inline]
pub(crate) fn reach(point: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::eval(point, |_| -> () { std::process::abort() });
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// Reads what the environment says of points. Called once, at the very start.
pub fn set_up() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}
