//! Least squares with a ridge, by Cholesky in f64.

use faer::Side;
use faer::linalg::solvers::{Llt, Solve};
use faer::{MatMut, MatRef};
use rayon::prelude::*;

use super::super::calibration::moments::{Moments, Normal};
use crate::cost::calibration::RIDGES;

/// The ridge where there are too few examples to hold some out.
const DEFAULT_RIDGE: f64 = 1e-2;
/// Most targets that the choice of the ridge looks at.
const JUDGES: usize = 256;

/// A solution of `y ≈ W x + b`.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    /// W, targets x features.
    pub(super) weight: Vec<f64>,
    /// b, 0 where the fit has none.
    pub(super) bias: Vec<f64>,
}

/// The solutions of all systems of a layer, which share a ridge.
#[derive(Debug, Clone)]
pub(super) struct LayerFit {
    pub(super) solutions: Vec<Solution>,
    /// Relative to the mean of the diagonal.
    pub(super) ridge: f64,
    /// E[(y - W x - b)²] over E[y²] (or the variance of y, with b), all targets together, on held-out examples where there are some.
    pub(super) residual: f64,
}

/// Moments of one system: of the examples that it is fitted to, and of those held out.
pub(super) type SplitMoments = [Moments; 2];

/// Fits W, and b where `centred`, of every system with the given `ridge`, or with the one that does best on what is held out;
/// what is returned is fitted to all examples. A system whose features are all 0 keeps its constant alone; `None` where that
/// is so of all.
pub(super) fn fit(systems: Vec<SplitMoments>, centred: bool, ridge: Option<f64>) -> Option<LayerFit> {
    let held_out = systems.first().is_some_and(|[_, held_out]| held_out.rows() > 0);
    let (ridge, residual) = match ridge {
        Some(ridge) if !held_out => (ridge, None),
        None if !held_out => (DEFAULT_RIDGE, None),
        given => {
            let best = choose(&systems, centred, given.as_slice());
            (best.0, Some(best.1))
        }
    };
    let fits: Vec<_> = systems.into_par_iter().map(|system| fit_one(system, centred, ridge)).collect();
    let ridge = fits.iter().filter_map(|(_, of_fit)| of_fit.map(|(ridge, _)| ridge)).reduce(f64::max)?;
    let error = fits.iter().filter_map(|(_, of_fit)| of_fit.map(|(_, error)| error)).sum::<Error>();
    let residual = residual.unwrap_or_else(|| error.relative());
    Some(LayerFit { solutions: fits.into_iter().map(|(solution, _)| solution).collect(), ridge, residual })
}

/// The solution of one system, with the ridge that it took and its error on what it is fitted to; without these where there
/// is nothing to solve.
fn fit_one([mut moments, held_out]: SplitMoments, centred: bool, ridge: f64) -> (Solution, Option<(f64, Error)>) {
    moments.merge(&held_out);
    let (at_x, at_y) = centre(&moments, centred);
    let normal = moments.about(&at_x, &at_y);
    let Some((weight, ridge)) = solve(&normal, ridge) else {
        return (Solution { weight: vec![0.0; normal.yx.len()], bias: at_y }, None);
    };
    let error = Error::of(&normal, &weight);
    let shift = |(row, at): (&[f64], &f64)| at - row.iter().zip(&at_x).map(|(w, x)| w * x).sum::<f64>();
    let bias = weight.chunks_exact(normal.features).zip(&at_y).map(shift).collect();
    (Solution { weight, bias }, Some((ridge, error)))
}

/// The ridge of `candidates` (or of [`RIDGES`], where there are none) with the least error on what is held out, and that
/// error.
fn choose(systems: &[SplitMoments], centred: bool, candidates: &[f64]) -> (f64, f64) {
    let candidates = if candidates.is_empty() { &RIDGES[..] } else { candidates };
    let errors: Vec<Vec<Error>> = systems.par_iter().map(|system| judge(system, centred, candidates)).collect();
    let of_ridge = |(at, ridge): (usize, &f64)| (*ridge, errors.iter().map(|of| of[at]).sum::<Error>().relative());
    let best = candidates.iter().enumerate().map(of_ridge).min_by(|a, b| a.1.total_cmp(&b.1));
    best.unwrap_or((DEFAULT_RIDGE, 1.0))
}

/// What each ridge misses of the held-out targets of one system.
fn judge([moments, held_out]: &SplitMoments, centred: bool, ridges: &[f64]) -> Vec<Error> {
    let (at_x, at_y) = centre(moments, centred);
    let step = at_y.len().div_ceil(JUDGES).max(1);
    let fitted = every(moments.about(&at_x, &at_y), step);
    let judged = every(held_out.about(&at_x, &at_y), step);
    let error = |ridge: &f64| match solve(&fitted, *ridge) {
        Some((weight, _)) => Error::of(&judged, &weight),
        None => Error::of(&judged, &vec![0.0; fitted.yx.len()]),
    };
    ridges.iter().map(error).collect()
}

/// The point that moments are taken about: the means, or 0.
pub(in crate::fusion) fn centre(moments: &Moments, centred: bool) -> (Vec<f64>, Vec<f64>) {
    let (mut x, mut y) = moments.means();
    if !centred {
        x.fill(0.0);
        y.fill(0.0);
    }
    (x, y)
}

/// Every `step`-th target.
fn every(normal: Normal, step: usize) -> Normal {
    let rows = normal.yx.chunks_exact(normal.features.max(1)).step_by(step);
    let yx: Vec<f64> = rows.flatten().copied().collect();
    let yy: Vec<f64> = normal.yy.iter().step_by(step).copied().collect();
    Normal { targets: yy.len(), yx, yy, ..normal }
}

/// W = E[y xᵀ] (E[x xᵀ] + ridge · mean diagonal · I)⁻¹ and the ridge, which grows until the matrix is positive definite.
pub(in crate::fusion) fn solve(normal: &Normal, ridge: f64) -> Option<(Vec<f64>, f64)> {
    let n = normal.features;
    let mean = (0..n).map(|i| normal.xx[i * n + i]).sum::<f64>() / n.max(1) as f64;
    if mean <= 0.0 || !mean.is_finite() {
        return None;
    }
    let mut ridge = ridge;
    while ridge <= 10.0 {
        let mut matrix = normal.xx.clone();
        (0..n).for_each(|i| matrix[i * n + i] += ridge * mean);
        if let Ok(factor) = Llt::new(MatRef::from_column_major_slice(&matrix, n, n), Side::Lower) {
            let mut weight = normal.yx.clone();
            // Rows of W are the columns that faer solves for.
            factor.solve_in_place(MatMut::from_column_major_slice_mut(&mut weight, n, normal.targets));
            return weight.iter().all(|value| value.is_finite()).then_some((weight, ridge));
        }
        ridge = (ridge * 10.0).max(1e-6);
    }
    None
}

/// Multiply-accumulates per second of solving systems here, on the threads of this pool; `timed` runs something and says how many seconds
/// it took.
pub fn solving_speed(timed: impl Fn(&mut dyn FnMut()) -> f64) -> f64 {
    const FEATURES: usize = 256;
    const TARGETS: usize = 64;
    let diagonal = |index: usize| if index.is_multiple_of(FEATURES + 1) { 2.0 } else { 1.0 / FEATURES as f64 };
    let normal = Normal {
        features: FEATURES,
        targets: TARGETS,
        xx: (0..FEATURES * FEATURES).map(diagonal).collect(),
        yx: vec![1.0; FEATURES * TARGETS],
        yy: vec![1.0; TARGETS],
    };
    let fastest = (0..4).map(|_| {
        timed(&mut || {
            let _solution = std::hint::black_box(solve(&normal, 0.0));
        })
    });
    let macs = FEATURES * FEATURES * (FEATURES / 3 + TARGETS);
    macs as f64 / fastest.fold(f64::INFINITY, f64::min).max(f64::EPSILON)
}

/// What a fit misses, all targets together.
#[derive(Debug, Clone, Copy, Default)]
struct Error {
    /// E[(y - W x)²].
    missed: f64,
    /// E[y²].
    all: f64,
}

impl Error {
    fn of(normal: &Normal, weight: &[f64]) -> Self {
        let n = normal.features;
        let mut product = vec![0.0; weight.len()];
        let rows = crate::kernels::Matrix::new(weight, normal.targets, n);
        let threads = std::num::NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(std::num::NonZeroUsize::MIN);
        crate::kernels::matmul(threads, rows, crate::kernels::Matrix::new(&normal.xx, n, n), &mut product, false);
        let explained: f64 = weight.iter().zip(&normal.yx).zip(&product).map(|((w, c), p)| w * (p - 2.0 * c)).sum();
        let all: f64 = normal.yy.iter().sum();
        Self { missed: (all + explained).max(0.0), all }
    }

    /// The missed share.
    fn relative(self) -> f64 {
        if self.all > 0.0 { self.missed / self.all } else { 0.0 }
    }
}

impl std::iter::Sum for Error {
    fn sum<I: Iterator<Item = Self>>(errors: I) -> Self {
        errors.fold(Self::default(), |a, b| Self { missed: a.missed + b.missed, all: a.all + b.all })
    }
}
