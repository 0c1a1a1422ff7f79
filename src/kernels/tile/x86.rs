//! Tiles by the vector instructions of x86.

use std::arch::asm;
use std::arch::x86_64::{
    _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::sync::LazyLock;

use super::{ROWS, Run, Tile, Walk};

/// Whether AVX-512 is left alone: to measure what processors without it do, and for those that slow down with it.
pub(super) static WITHOUT_AVX512: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("ENGRAFT_WITHOUT_AVX512").is_some());

pub(super) const AVX512_WIDE: Tile<f32> = Tile { columns: 32, run: avx512_wide };
pub(super) const AVX512_NARROW: Tile<f32> = Tile { columns: 16, run: avx512_narrow };

/// Tiles of AVX2: their columns and how long a step takes, in hundredths of the widest (measured).
pub(super) const AVX2: [(usize, usize, Run<f32>); 3] =
    [(8, 42, avx2_narrow), (16, 78, avx2_medium), (24, 100, avx2_wide)];

/// The tile of AVX2 that has the least to do for `columns` columns: those that fill up the last panel count.
pub(super) fn avx2(columns: usize) -> Tile<f32> {
    let cost = |(width, cost, _): &(usize, usize, Run<f32>)| columns.div_ceil(*width) * cost;
    let (columns, _, run) = AVX2.into_iter().rev().min_by_key(cost).unwrap_or(AVX2[0]);
    Tile { columns, run }
}

/// A loop over some rows with a few vectors for each; rows are spelled out, so that they stay in registers at every level of
/// optimisation. All rows move on together: one distance is counted up, not a pointer for each.
macro_rules! tile {
    (
        $name:ident, $features:literal, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident,
        $fused:ident, $vectors:tt, [$(($sum:ident, $at:ident, $row:literal)),*]
    ) => {
        /// # Safety
        /// The processor must have the instructions; all positions of the walk must lie within the operands.
        #[target_feature(enable = $features)]
        unsafe fn $name(walk: &Walk, rows: &[usize], left: *const f32, right: *const f32, sums: *mut f32) {
            $(let mut $sum = tile!(@zeros $zero, $vectors);)*
            for &(a, b) in walk.starts {
                let mut right = right.wrapping_add(b);
                $(let $at = left.wrapping_add(rows[$row] + a);)*
                let mut along = 0;
                for _ in 0..walk.len {
                    // SAFETY: the caller vouches for all positions of the walk.
                    unsafe {
                        let vectors = tile!(@load $load, right, $lanes, $vectors);
                        $(
                            let value = $splat(*$at.wrapping_add(along));
                            tile!(@fuse $fused, value, vectors, $sum, $vectors);
                        )*
                    }
                    along += walk.steps.0;
                    right = right.wrapping_add(walk.steps.1);
                }
            }
            let mut sums = sums;
            $(for value in $sum {
                // SAFETY: the caller vouches for the length of `sums`.
                unsafe {
                    $store(sums, $add($load(sums), value));
                    sums = sums.add($lanes);
                }
            })*
        }
    };
    (@zeros $zero:ident, [$($part:literal),*]) => { [$(tile!(@one $part $zero())),*] };
    (@one $part:literal $value:expr) => { $value };
    (@load $load:ident, $right:ident, $lanes:literal, [$($part:literal),*]) => {
        [$($load($right.add($part * $lanes))),*]
    };
    (@fuse $fused:ident, $value:ident, $loaded:ident, $sum:ident, [$($part:literal),*]) => {
        $($sum[$part] = $fused($value, $loaded[$part], $sum[$part]);)*
    };
    // With AVX-512 there are registers for eight rows of two vectors.
    (avx512 $name:ident, $vectors:tt) => {
        tile!(
            $name,
            "avx512f",
            16,
            _mm512_setzero_ps,
            _mm512_set1_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_add_ps,
            _mm512_fmadd_ps,
            $vectors,
            [(c0, p0, 0), (c1, p1, 1), (c2, p2, 2), (c3, p3, 3), (c4, p4, 4), (c5, p5, 5), (c6, p6, 6), (c7, p7, 7)]
        );
    };
    (avx2 $name:ident, $vectors:tt, $rows:tt) => {
        tile!(
            $name,
            "avx2,fma",
            8,
            _mm256_setzero_ps,
            _mm256_set1_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_add_ps,
            _mm256_fmadd_ps,
            $vectors,
            $rows
        );
    };
}

/// A tile's loop by one or two passes over its rows.
macro_rules! passes {
    ($name:ident, $features:literal, $pass:ident, $rows:literal, $columns:literal) => {
        /// # Safety
        /// The processor must have the instructions; all positions of the walk must lie within the operands.
        #[target_feature(enable = $features)]
        unsafe fn $name(walk: &Walk, rows: &[usize; ROWS], left: *const f32, right: *const f32, sums: *mut f32) {
            for (pass, rows) in rows.chunks_exact($rows).enumerate() {
                // SAFETY: what this function asks for, for some of its rows.
                unsafe { $pass(walk, rows, left, right, sums.add(pass * $rows * $columns)) };
            }
        }
    };
}

tile!(avx512 eight_by_32, [0, 1]);
tile!(avx512 eight_by_16, [0]);
passes!(avx512_wide, "avx512f", eight_by_32, 8, 32);
passes!(avx512_narrow, "avx512f", eight_by_16, 8, 16);

// AVX2 has half as many registers: eight rows go in two passes, so that a pass loads three vectors and four values for twelve products.
// That takes each of the sixteen registers, which is more than compilers manage: they move sums about.
/// # Safety
/// The processor must have the instructions; all positions of the walk must lie within the operands.
#[target_feature(enable = "avx2,fma")]
unsafe fn four_by_24(walk: &Walk, rows: &[usize], left: *const f32, right: *const f32, sums: *mut f32) {
    let mut sum = [_mm256_setzero_ps(); 12];
    let [c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11] = &mut sum;
    for &(a, b) in walk.starts {
        // SAFETY: the caller vouches for all positions of the walk, whose length is at least 1.
        unsafe {
            asm!(
                "2:",
                "vmovups {x0}, [{right}]",
                "vmovups {x1}, [{right} + 32]",
                "vmovups {x2}, [{right} + 64]",
                "vbroadcastss {y}, [{p0} + {along}]",
                "vfmadd231ps {c0}, {y}, {x0}",
                "vfmadd231ps {c1}, {y}, {x1}",
                "vfmadd231ps {c2}, {y}, {x2}",
                "vbroadcastss {y}, [{p1} + {along}]",
                "vfmadd231ps {c3}, {y}, {x0}",
                "vfmadd231ps {c4}, {y}, {x1}",
                "vfmadd231ps {c5}, {y}, {x2}",
                "vbroadcastss {y}, [{p2} + {along}]",
                "vfmadd231ps {c6}, {y}, {x0}",
                "vfmadd231ps {c7}, {y}, {x1}",
                "vfmadd231ps {c8}, {y}, {x2}",
                "vbroadcastss {y}, [{p3} + {along}]",
                "vfmadd231ps {c9}, {y}, {x0}",
                "vfmadd231ps {c10}, {y}, {x1}",
                "vfmadd231ps {c11}, {y}, {x2}",
                "add {right}, {right_step}",
                "add {along}, {left_step}",
                "dec {len}",
                "jnz 2b",
                right = inout(reg) right.wrapping_add(b) => _,
                along = inout(reg) 0_usize => _,
                len = inout(reg) walk.len => _,
                right_step = in(reg) walk.steps.1 * size_of::<f32>(),
                left_step = in(reg) walk.steps.0 * size_of::<f32>(),
                p0 = in(reg) left.wrapping_add(rows[0] + a),
                p1 = in(reg) left.wrapping_add(rows[1] + a),
                p2 = in(reg) left.wrapping_add(rows[2] + a),
                p3 = in(reg) left.wrapping_add(rows[3] + a),
                x0 = out(ymm_reg) _,
                x1 = out(ymm_reg) _,
                x2 = out(ymm_reg) _,
                y = out(ymm_reg) _,
                c0 = inout(ymm_reg) *c0,
                c1 = inout(ymm_reg) *c1,
                c2 = inout(ymm_reg) *c2,
                c3 = inout(ymm_reg) *c3,
                c4 = inout(ymm_reg) *c4,
                c5 = inout(ymm_reg) *c5,
                c6 = inout(ymm_reg) *c6,
                c7 = inout(ymm_reg) *c7,
                c8 = inout(ymm_reg) *c8,
                c9 = inout(ymm_reg) *c9,
                c10 = inout(ymm_reg) *c10,
                c11 = inout(ymm_reg) *c11,
                options(readonly, nostack),
            );
        }
    }
    for (part, value) in sum.into_iter().enumerate() {
        // SAFETY: the caller vouches for the length of `sums`.
        unsafe {
            let sums = sums.add(part * 8);
            _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), value));
        }
    }
}

tile!(avx2 four_by_16, [0, 1], [(c0, p0, 0), (c1, p1, 1), (c2, p2, 2), (c3, p3, 3)]);
tile!(
    avx2 eight_by_8,
    [0],
    [(c0, p0, 0), (c1, p1, 1), (c2, p2, 2), (c3, p3, 3), (c4, p4, 4), (c5, p5, 5), (c6, p6, 6), (c7, p7, 7)]
);
passes!(avx2_wide, "avx2,fma", four_by_24, 4, 24);
passes!(avx2_medium, "avx2,fma", four_by_16, 4, 16);
passes!(avx2_narrow, "avx2,fma", eight_by_8, 8, 8);
