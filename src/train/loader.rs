//! Batches on their way to training: gathered, normalised and varied on a thread of their own while the step before runs.

use std::sync::mpsc::sync_channel;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::data::augment::{ImageShape, ImageView, Views};
use crate::exec::{Held, HeldView, Inputs};
use crate::kernels::truth::TruthBuffer;
use crate::settings::Augment;
use crate::train::{Examples, TrainError};

/// Batches that are in memory at once: one in training, one in the making.
const BUFFERS: usize = 2;

/// Examples that are ready for a step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Inputs as the network sees them, one after another; nothing where the device holds them.
    pub(super) images: Vec<f32>,
    /// Which of the images that the device holds.
    indices: Vec<u32>,
    /// How each of these is seen; nothing where all are as they are.
    views: Vec<HeldView>,
    /// What the outputs for each should be.
    pub(super) truths: TruthBuffer,
    /// The teacher's logits (batch x classes), where they are stored.
    pub(super) teacher: Vec<f32>,
}

impl Batch {
    /// The inputs, of which `held` has the images if the device holds them.
    pub(super) fn inputs<'a>(&'a self, held: Option<&'a Held>) -> Inputs<'a> {
        let views = (!self.views.is_empty()).then_some(&self.views[..]);
        held.map_or(Inputs::Images(&self.images), |held| Inputs::Held { held, indices: &self.indices, views })
    }
}

/// What batches are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSource<'a> {
    pub(super) examples: &'a dyn Examples,
    /// Stored logits, `classes` for each example.
    pub(super) teacher: Option<&'a [f32]>,
    pub(super) classes: usize,
    pub(super) augment: Option<(Augment, ImageShape)>,
    pub(super) seed: u64,
    /// Whether the device holds the images, and batches only say which ones.
    pub(super) held: bool,
}

impl BatchSource<'_> {
    fn views(&self, epoch: usize) -> Option<Views> {
        self.augment.map(|(augment, _)| Views::new(augment, self.seed, epoch))
    }

    /// Makes the batch of the examples `indices`; allocates only where it is larger than all before.
    fn prepare(&self, indices: &[usize], views: Option<&mut Views>, batch: &mut Batch) {
        if self.held {
            self.pick(indices, views, batch);
        } else {
            self.fill(indices, views, batch);
        }
        batch.truths.clear();
        for index in indices {
            batch.truths.push(self.examples.truth(*index));
        }
        if let Some(teacher) = self.teacher {
            batch.teacher.clear();
            let rows = indices.iter().map(|index| &teacher[index * self.classes..(index + 1) * self.classes]);
            rows.for_each(|row| batch.teacher.extend_from_slice(row));
        }
    }

    /// The images themselves.
    fn fill(&self, indices: &[usize], views: Option<&mut Views>, batch: &mut Batch) {
        let len = self.examples.example_len();
        batch.images.resize(indices.len() * len, 0.0);
        self.examples.fill(indices, &mut batch.images);
        if let (Some(views), Some((_, shape))) = (views, self.augment) {
            for (image, index) in batch.images.chunks_exact_mut(len).zip(indices) {
                views.of(*index).apply(image, shape, |channel| self.examples.black(channel));
            }
        }
    }

    /// Which images, and how they are seen.
    fn pick(&self, indices: &[usize], views: Option<&mut Views>, batch: &mut Batch) {
        batch.indices.clear();
        batch.indices.extend(indices.iter().map(|index| self.examples.stored_index(*index)));
        batch.views.clear();
        if let Some(views) = views {
            batch.views.extend(indices.iter().map(|index| {
                let ImageView { shift: [down, right], flip } = views.of(*index);
                [down as i32, right as i32, i32::from(flip)]
            }));
        }
    }
}

/// The thread that makes batches.
#[derive(Debug)]
pub(super) struct Loader(ThreadPool);

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses it.
    pub(super) fn new() -> Result<Self, TrainError> {
        let pool = ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "batches".to_owned()).build();
        pool.map(Self).map_err(TrainError::Thread)
    }

    /// Calls `take` with each whole batch of `size` examples in `order`, as it is in `epoch`. While it runs, the next batch
    /// is made; when it fails, no further one than that.
    ///
    /// # Errors
    /// The first of `take`.
    pub(super) fn each<E>(
        &self,
        source: BatchSource<'_>,
        epoch: usize,
        order: &[usize],
        size: usize,
        mut take: impl FnMut(&mut Batch) -> Result<(), E>,
    ) -> Result<(), E> {
        let (give, filled) = sync_channel(BUFFERS);
        let (give_back, free) = sync_channel(BUFFERS);
        self.0.in_place_scope(|scope| {
            scope.spawn(move |_| {
                let (mut views, mut made) = (source.views(epoch), 0);
                for indices in order.chunks_exact(size) {
                    let unused = if made < BUFFERS { Some(Batch::default()) } else { free.recv().ok() };
                    // The other side has gone when a step failed.
                    let Some(mut batch) = unused else { return };
                    source.prepare(indices, views.as_mut(), &mut batch);
                    made += 1;
                    if give.send(batch).is_err() {
                        return;
                    }
                }
            });
            // Owned here, so that the thread learns of the end, whatever it is.
            let (filled, give_back) = (filled, give_back);
            while let Ok(mut batch) = filled.recv() {
                take(&mut batch)?;
                // After the last batch nobody waits for it.
                let _unwanted = give_back.send(batch);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::truth::Truth;

    /// Images of 1 x 2 x 3 whose pixels hold the example's number.
    #[derive(Debug)]
    struct Numbers(usize);

    impl Examples for Numbers {
        fn len(&self) -> usize {
            self.0
        }

        fn example_len(&self) -> usize {
            6
        }

        fn image_shape(&self) -> Option<ImageShape> {
            Some([1, 2, 3])
        }

        fn black(&self, _: usize) -> f32 {
            -1.0
        }

        fn truth(&self, index: usize) -> Truth<'_> {
            Truth::Class(index as u32 % 7)
        }

        fn fill(&self, indices: &[usize], images: &mut [f32]) {
            for (image, index) in images.chunks_exact_mut(6).zip(indices) {
                (0..6).for_each(|at| image[at] = (index * 6 + at) as f32);
            }
        }
    }

    fn source<'a>(examples: &'a Numbers, teacher: &'a [f32]) -> BatchSource<'a> {
        let augment = Some((Augment { crop_padding: 1, flip: true }, [1, 2, 3]));
        BatchSource { examples, teacher: Some(teacher), classes: 2, augment, seed: 9, held: false }
    }

    #[test]
    fn batches_made_ahead_are_those_made_directly() {
        let (examples, teacher) = (Numbers(50), (0..100_u8).map(f32::from).collect::<Vec<f32>>());
        let source = source(&examples, &teacher);
        let order: Vec<usize> = (0..50).map(|at| at * 7 % 50).collect();
        let mut direct = Vec::new();
        for indices in order.chunks_exact(8) {
            let mut batch = Batch::default();
            source.prepare(indices, source.views(3).as_mut(), &mut batch);
            direct.push((batch.images, batch.truths, batch.teacher));
        }
        let mut ahead = Vec::new();
        let each = Loader::new().unwrap().each(source, 3, &order, 8, |batch| {
            ahead.push((batch.images.clone(), batch.truths.clone(), batch.teacher.clone()));
            Ok::<_, ()>(())
        });
        assert_eq!((each, ahead.len()), (Ok(()), 6), "the last two examples are no whole batch");
        assert_eq!(ahead, direct);
        let plain = BatchSource { augment: None, ..source };
        let mut varied = 0;
        Loader::new()
            .unwrap()
            .each(plain, 3, &order, 8, |batch| {
                varied +=
                    batch.images.chunks(6).zip(ahead[0].0.chunks(6)).filter(|(plain, seen)| plain != seen).count();
                Err(())
            })
            .unwrap_err();
        assert!(varied > 4, "{varied} of 8 images varied");
    }

    #[test]
    fn buffers_are_used_again_and_a_failing_step_ends_the_making() {
        let (examples, teacher) = (Numbers(400), vec![0.0; 800]);
        let order: Vec<usize> = (0..400).collect();
        let (mut buffers, mut steps) = (std::collections::BTreeSet::new(), 0);
        let failed = Loader::new().unwrap().each(source(&examples, &teacher), 1, &order, 4, |batch| {
            let TruthBuffer::Classes(labels) = &batch.truths else { return Err(0) };
            buffers.insert([batch.images.as_ptr().addr(), labels.as_ptr().addr(), batch.teacher.as_ptr().addr()]);
            steps += 1;
            if steps == 50 { Err(steps) } else { Ok(()) }
        });
        assert_eq!((failed, buffers.len()), (Err(50), BUFFERS));
    }
}
