//! Rows of features and targets out of values, and sums over them: what fits and rankings are made of.
//!
//! Products are formed in f32 over blocks of [`BLOCK`] rows, with all bits of the factors, and added up in f64.

use crate::exec::gpu::kernels::elementwise::THREADS;
use crate::exec::gpu::tape::{Argument, Command, Factor, Finish, Place, Product, Storage, Tape, Values};
use crate::exec::statistics::Pick;
use crate::kernels::Geometry;

/// Rows whose products are added up in f32.
pub const BLOCK: usize = 1024;

/// Columns that a block of threads adds up, and lanes that share their rows.
const COLUMNS: usize = 32;
const LANES: usize = 16;

/// Rows of f32 numbers on the device.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Where they are.
    pub place: Place,
    /// How many.
    pub count: usize,
    /// Numbers of a row.
    pub columns: usize,
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// Places of an example on the device, two `u32` each.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Where they are.
    pub place: Place,
    /// How many.
    pub count: usize,
}

/// Sums over rows, in f64.
#[derive(Debug, Clone, Copy)]
pub struct SumPlaces {
    /// Σ x xᵀ, of each system.
    pub xx: Place,
    /// Σ y xᵀ, of each system.
    pub yx: Place,
    /// Σ y².
    pub yy: Place,
    /// Σ x.
    pub x: Place,
    /// Σ y.
    pub y: Place,
}

/// Adds channels of `values` (f32) at each place to columns of `rows`, of which there is one for each example and place.
pub fn pick(tape: &mut Tape, values: Values, places: Places, picks: &[Pick], rows: Rows) {
    for picks in rounds(picks) {
        let words = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let table: Vec<i32> = picks.iter().flat_map(|pick| [words(pick.channel), words(pick.column)]).collect();
        let factors: Vec<i32> = picks.iter().map(|pick| pick.factor.to_bits().cast_signed()).collect();
        let (table, factors) = (tape.constant(&table), tape.constant(&factors));
        let numbers = rows.count * picks.len();
        let sizes = [numbers, picks.len(), places.count, values.positions, values.stride, rows.stride];
        let pointers: [Argument; 5] =
            [values.into(), places.place.into(), table.into(), factors.into(), rows.place.into()];
        let arguments = pointers.into_iter().chain(sizes.map(Argument::from)).collect();
        tape.launch_plain("pick_rows", [numbers.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
    }
}

/// Picks in as many rounds as it takes until no two of a round have one column.
fn rounds(picks: &[Pick]) -> Vec<Vec<Pick>> {
    let columns = picks.iter().map(|pick| pick.column + 1).max().unwrap_or(0);
    let mut taken = vec![0; columns];
    let mut rounds: Vec<Vec<Pick>> = Vec::new();
    for pick in picks {
        let round = &mut taken[pick.column];
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(*pick);
        *round += 1;
    }
    rounds
}

/// Writes what a kernel of these sizes sees of `values` (f32), for each of `groups` groups of channels one after another, to `rows`, of
/// which there is one for each example and place of the output.
pub fn windows(tape: &mut Tape, values: Values, places: Places, geometry: &Geometry, groups: usize, rows: Rows) {
    let Geometry { input, output, kernel, stride, padding, dilation, .. } = *geometry;
    let sizes = [input, kernel, stride, padding, dilation];
    let table: Vec<i32> = sizes.as_flattened().iter().map(|size| i32::try_from(*size).unwrap_or(i32::MAX)).collect();
    let table = tape.constant(&table);
    let numbers = rows.count * rows.columns;
    let width = values.channels / groups.max(1);
    let sizes = [numbers, rows.columns, places.count, output[1], width, values.stride, rows.stride];
    let pointers: [Argument; 4] = [values.into(), places.place.into(), table.into(), rows.place.into()];
    let arguments = pointers.into_iter().chain(sizes.map(Argument::from)).collect();
    tape.launch_plain("window_rows", [numbers.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
}

/// Adds rows of features x and targets y to the sums of `systems` systems, whose columns stand one after another; `block` holds the
/// products of one block, as many numbers as `xx` or `yx` has.
pub fn add(tape: &mut Tape, systems: usize, [x, y]: [Rows; 2], sums: SumPlaces, block: Place) {
    columns(tape, x, sums.x, None);
    products(tape, systems, [x, x], sums.xx, block);
    if y.columns > 0 {
        columns(tape, y, sums.y, Some(sums.yy));
        products(tape, systems, [y, x], sums.yx, block);
    }
}

fn columns(tape: &mut Tape, rows: Rows, sums: Place, squares: Option<Place>) {
    let sizes = [rows.count, rows.columns, rows.stride].map(Argument::from);
    let arguments = [rows.place.into(), sums.into(), squares.into()].into_iter().chain(sizes).collect();
    tape.launch_plain("add_columns", [rows.columns.div_ceil(COLUMNS).max(1), 1, 1], COLUMNS * LANES, arguments);
}

/// `sums += leftᵀ right`, of each system.
fn products(tape: &mut Tape, systems: usize, [left, right]: [Rows; 2], sums: Place, block: Place) {
    let [rows, columns] = [left, right].map(|rows| rows.columns / systems.max(1));
    let numbers = systems * rows * columns;
    for first in (0..left.count).step_by(BLOCK) {
        let depth = BLOCK.min(left.count - first);
        let factor = |rows: Rows, transposed| Factor {
            place: rows.place.part(first * rows.stride * 4, depth * rows.stride * 4),
            storage: Storage::F32,
            stride: rows.stride,
            transposed,
            step: rows.columns / systems.max(1),
        };
        let result = Factor {
            place: block.part(0, numbers * 4),
            storage: Storage::F32,
            stride: columns,
            transposed: false,
            step: rows * columns,
        };
        tape.commands.push(Command::Product(Product {
            left: factor(left, true),
            right: factor(right, false),
            result,
            sizes: [rows, columns, depth],
            batch: systems,
            scale: 1.0,
            accumulate: false,
            exact: true,
            finish: Finish { bias: None, relu: false },
        }));
        let arguments = vec![block.into(), sums.into(), numbers.into()];
        tape.launch_plain("add_products", [numbers.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::emulated::Bench;
    use crate::kernels::finite_difference::sample;

    fn doubles(bench: &Bench, place: Place) -> Vec<f64> {
        let bytes = bench.device.bytes(place).chunks_exact(8);
        bytes.map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn zeros(bench: &mut Bench, numbers: usize, bytes: usize) -> Place {
        let place = bench.device.place(numbers * bytes);
        bench.device.put_bytes(place, &vec![0; numbers * bytes]);
        place
    }

    fn near(got: &[f64], expected: &[f64], what: &str) {
        assert_eq!(got.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(1e-3_f64, |most, number| most.max(number.abs()));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-6 * scale, "{what}: {got} for {expected}");
        }
    }

    #[test]
    fn channels_come_to_their_columns() {
        let mut bench = Bench::new(Storage::F32);
        let (values, numbers) = bench.input([3, 5, 7]);
        let places: [[u32; 2]; 2] = [[4, 0], [1, 2]];
        let place = bench.device.words(places.as_flattened());
        let rows = Rows { place: zeros(&mut bench, 6 * 4, 4), count: 6, columns: 3, stride: 4 };
        let pick_of = |channel, column, factor| Pick { channel, column, factor };
        let picks = [pick_of(0, 2, 1.0), pick_of(4, 0, 0.5), pick_of(1, 2, -2.0)];
        pick(&mut bench.tape, values, Places { place, count: 2 }, &picks, rows);
        bench.play();
        let mut expected = vec![0.0; 24];
        for (row, expected) in expected.chunks_exact_mut(4).enumerate() {
            let [position, shift] = places[row % 2].map(|at| at as usize);
            for Pick { channel, column, factor } in picks {
                let value = numbers[(row / 2 * 5 + position) * 7 + channel + shift];
                expected[column] += f64::from(factor) * value;
            }
        }
        bench.check_floats("picks", rows.place, &expected);
    }

    #[test]
    fn kernels_see_their_windows() {
        for groups in [1, 3] {
            let mut bench = Bench::new(Storage::F32);
            let geometry = Geometry {
                channels: 6,
                input: [4, 5],
                output: [2, 5],
                kernel: [3, 2],
                stride: [2, 1],
                padding: [1, 1],
                dilation: [1, 2],
            };
            let (values, numbers) = bench.input([2, 20, 6]);
            let places = [[0_u32, 0], [3, 0], [9, 0]];
            let place = bench.device.words(places.as_flattened());
            let rows = Rows { place: zeros(&mut bench, 6 * 36, 4), count: 6, columns: 36, stride: 36 };
            windows(&mut bench.tape, values, Places { place, count: 3 }, &geometry, groups, rows);
            bench.play();
            let width = 6 / groups;
            let mut expected = Vec::new();
            for (example, [position, _]) in (0..2).flat_map(|example| places.map(|place| (example, place))) {
                let at = [position as usize / 5, position as usize % 5];
                for (group, tap) in (0..groups).flat_map(|group| (0..6).map(move |tap| (group, tap))) {
                    let place = |axis: usize, tap: usize| {
                        let place = at[axis] * geometry.stride[axis] + tap * geometry.dilation[axis];
                        place.checked_sub(geometry.padding[axis]).filter(|place| *place < geometry.input[axis])
                    };
                    for channel in group * width..(group + 1) * width {
                        let value = place(0, tap / 2).zip(place(1, tap % 2));
                        let value = value.map(|(y, x)| numbers[((example * 4 + y) * 5 + x) * 6 + channel]);
                        expected.push(value.unwrap_or(0.0));
                    }
                }
            }
            bench.check_floats("windows", rows.place, &expected);
        }
    }

    /// Two batches, the first with more rows than a block.
    #[test]
    fn sums_are_those_of_the_formula() {
        for (systems, features, targets) in [(1, 5, 3), (3, 4, 2), (2, 1, 0), (1, 37, 33)] {
            let mut bench = Bench::new(Storage::F32);
            let [columns_x, columns_y] = [features, targets].map(|columns| systems * columns);
            let mut sum_place = |numbers: usize| zeros(&mut bench, numbers.max(1), 8);
            let sums = SumPlaces {
                xx: sum_place(systems * features * features),
                yx: sum_place(systems * features * targets),
                yy: sum_place(columns_y),
                x: sum_place(columns_x),
                y: sum_place(columns_y),
            };
            let block = bench.device.place(4 * systems * features * features.max(targets));
            let mut expected: [Vec<f64>; 5] = [
                vec![0.0; systems * features * features],
                vec![0.0; systems * targets * features],
                vec![0.0; columns_y],
                vec![0.0; columns_x],
                vec![0.0; columns_y],
            ];
            for (batch, count) in [(0, BLOCK + 30), (1, 7)] {
                let single = |len: usize, seed: u64| sample(len, seed).iter().map(|v| *v as f32).collect::<Vec<_>>();
                let [x, y] = [columns_x, columns_y].map(|columns| single(count * columns, 7 + batch));
                let [rows_x, rows_y] = [(&x, columns_x), (&y, columns_y)].map(|(numbers, columns)| {
                    let numbers = if columns > 0 { numbers.clone() } else { vec![0.0; count] };
                    let values = bench.device.values(&numbers, count, 1, columns.max(1), Storage::F32);
                    Rows { place: values.place, count, columns, stride: values.stride }
                });
                add(&mut bench.tape, systems, [rows_x, rows_y], sums, block);
                bench.play();
                for row in 0..count {
                    let x = |system: usize, i: usize| f64::from(x[row * columns_x + system * features + i]);
                    let y = |system: usize, t: usize| f64::from(y[row * columns_y + system * targets + t]);
                    for system in 0..systems {
                        for i in 0..features {
                            expected[3][system * features + i] += x(system, i);
                            for j in 0..features {
                                expected[0][(system * features + i) * features + j] += x(system, i) * x(system, j);
                            }
                        }
                        for t in 0..targets {
                            expected[2][system * targets + t] += y(system, t) * y(system, t);
                            expected[4][system * targets + t] += y(system, t);
                            for i in 0..features {
                                expected[1][(system * targets + t) * features + i] += y(system, t) * x(system, i);
                            }
                        }
                    }
                }
            }
            for (place, expected) in [sums.xx, sums.yx, sums.yy, sums.x, sums.y].into_iter().zip(&expected) {
                near(&doubles(&bench, place)[..expected.len()], expected, "sums");
            }
        }
    }
}
