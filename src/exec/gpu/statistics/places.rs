//! Where the rows and the sums of a pass are.

use crate::exec::gpu::arena::Room;
use crate::exec::gpu::kernels::calibration::{Places, Rows, SumPlaces};
use crate::exec::gpu::tape::{Place, Storage};
use crate::exec::statistics::{PARTS, RowLayout, RowPart, RowSystems, StatisticsPass, Sums};

/// The memory of a pass; all passes use the same one.
#[derive(Debug)]
pub(super) struct PassPlaces {
    /// Tables of places.
    pub(super) tables: Vec<Places>,
    /// Of all [`RowSystems`].
    pub(super) systems: Vec<SystemPlaces>,
    /// Products of a block of rows.
    pub(super) block: Place,
    /// The first byte behind it.
    pub(super) end: usize,
}

/// The memory of systems that share their rows.
#[derive(Debug)]
pub(super) struct SystemPlaces {
    /// Rows of one example.
    per_example: usize,
    /// Features and targets of the largest batch.
    rows: [Rows; 2],
    /// Sums, of each part of the examples.
    pub(super) sums: [SumPlaces; PARTS],
}

impl PassPlaces {
    /// For batches of up to `batch` examples, from the byte `first` on.
    pub(super) fn plan(pass: &StatisticsPass, batch: usize, first: usize) -> Self {
        let mut room = Room(first);
        let tables = pass.places.iter().map(|count| Places { place: room.place(count * 8), count: *count });
        let tables: Vec<Places> = tables.collect();
        let systems = pass.systems.iter().map(|systems| {
            let per_example = rows_of(&systems.features).map_or(0, |table| pass.places[table]);
            let count = batch * per_example;
            let rows = [&systems.features, &systems.targets].map(|layout| {
                let stride = Storage::F32.stride(layout.columns);
                Rows { place: room.place(count * stride * 4), count, columns: layout.columns, stride }
            });
            let [features, targets] = [systems.features.columns, systems.targets.columns];
            let own = features / systems.count.max(1);
            let sums = [(); PARTS].map(|()| {
                let mut place = |numbers: usize| room.place(numbers * 8);
                SumPlaces {
                    xx: place(features * own),
                    yx: place(targets * own),
                    yy: place(targets),
                    x: place(features),
                    y: place(targets),
                }
            });
            SystemPlaces { per_example, rows, sums }
        });
        let systems = systems.collect();
        let products = |systems: &RowSystems| {
            let [features, targets] = [&systems.features, &systems.targets].map(|rows| rows.columns);
            features.max(targets) * (features / systems.count.max(1))
        };
        let block = room.place(pass.systems.iter().map(products).max().unwrap_or(0) * 4);
        Self { tables, systems, block, end: room.0 }
    }
}

/// The table of places that rows follow.
fn rows_of(layout: &RowLayout) -> Option<usize> {
    layout.parts.first().map(|part| match part {
        RowPart::Picks { places, .. } | RowPart::Windows { places, .. } => *places,
    })
}

impl SystemPlaces {
    /// Features and targets of a batch of `examples`.
    pub(super) fn rows(&self, examples: usize) -> [Rows; 2] {
        self.rows.map(|rows| Rows { count: examples * self.per_example, ..rows })
    }
}

/// All sums of a part, as bytes are read: of all systems one after another.
#[derive(Debug)]
pub(super) struct SumsRead {
    pub(super) xx: Vec<f64>,
    pub(super) yx: Vec<f64>,
    pub(super) yy: Vec<f64>,
    pub(super) x: Vec<f64>,
    pub(super) y: Vec<f64>,
}

impl SumsRead {
    /// The sums of the system at this position of `count`, over `rows` rows.
    pub(super) fn of(&self, system: usize, count: usize, rows: usize) -> Sums {
        let own = |all: &[f64]| {
            let len = all.len() / count.max(1);
            all[system * len..][..len].to_vec()
        };
        Sums { rows, xx: own(&self.xx), yx: own(&self.yx), yy: own(&self.yy), x: own(&self.x), y: own(&self.y) }
    }
}
