use super::*;
use crate::exec::gpu::tape::{Convolution, ConvolutionPass, Factor, Finish, Product};
use crate::kernels::Geometry;
use crate::kernels::conv::Conv;
use crate::kernels::finite_difference::{sample, workspace};

const STORAGES: [Storage; 2] = [Storage::F32, Storage::Bf16];

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn near(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() <= tolerance, "{got} for {expected}");
    }
}

#[test]
fn values_are_padded_and_read_back() {
    for storage in STORAGES {
        let mut device = Emulated::new();
        let values = device.values(&[1.0, -2.0, 0.5, 4.0, 5.0, 6.0], 2, 1, 3, storage);
        assert_eq!(values.stride, 16 / storage.bytes());
        assert_eq!(device.read(values, storage), [1.0, -2.0, 0.5, 4.0, 5.0, 6.0]);
        let output = device.output(1, 1, 3, storage);
        assert!(device.stored(output.place, storage).iter().all(|number| number.is_nan()));
        assert_eq!(output.place.offset % 256, 0);
    }
}

/// `left` (2 x 3), `right` transposed (2 x 3 stored), two products, bias and ReLU.
#[test]
fn products_are_those_of_the_formula() {
    for storage in STORAGES {
        let mut device = Emulated::new();
        let left = device.values(&[1.0, 2.0, 3.0, -1.0, 0.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, -4.0], 4, 1, 3, storage);
        let right = device.values(&[1.0, 0.0, 1.0, 2.0, 1.0, 0.0], 2, 1, 3, storage);
        let result = device.values(&[1.0; 8], 4, 1, 2, storage);
        let bias = device.values(&[0.5, -8.0], 1, 1, 2, storage).place;
        let factor = |values: Values, transposed, step| Factor {
            place: values.place,
            storage,
            stride: values.stride,
            transposed,
            step,
        };
        let mut tape = Tape::new(storage);
        tape.commands.push(Command::Product(Product {
            left: factor(left, false, 2 * left.stride),
            right: factor(right, true, 0),
            result: factor(result, false, 2 * result.stride),
            sizes: [2, 2, 3],
            batch: 2,
            scale: 2.0,
            accumulate: true,
            exact: false,
            finish: Finish { bias: Some(bias), relu: true },
        }));
        device.play(&tape);
        assert_eq!(device.read(result, storage), [9.5, 1.0, 1.5, 0.0, 9.5, 5.0, 0.0, 0.0]);
    }
}

#[test]
fn convolutions_are_those_of_the_processor() {
    let geometry = Geometry {
        channels: 4,
        input: [5, 4],
        output: [3, 2],
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
        dilation: [1, 2],
    };
    let conv = Conv { geometry, out_channels: 8, groups: 1 };
    let (x, weight, dy) = (sample(2 * 20 * 4, 1), sample(8 * 6 * 4, 2), sample(2 * 6 * 8, 3));
    let mut work = workspace();
    let (mut y, mut dx, mut dweight) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
    conv.forward(&mut work, &x, &weight, None, false, &mut y);
    conv.backward_input(&mut work, &dy, &weight, &mut dx, false);
    conv.backward_parameters(&mut work, &x, &dy, &mut dweight, None);
    for (pass, expected) in
        [(ConvolutionPass::Forward, &y), (ConvolutionPass::Input, &dx), (ConvolutionPass::Weight, &dweight)]
    {
        let mut device = Emulated::new();
        let [x, weight, dy] = [&x, &weight, &dy].map(|values| device.numbers(&singles(values)));
        let result = [dy, x, weight][pass as usize];
        let mut tape = Tape::new(Storage::F32);
        let storage = Storage::F32;
        let (out_channels, examples, accumulate) = (8, 2, false);
        tape.commands.push(Command::Convolution(Convolution {
            pass,
            geometry,
            out_channels,
            examples,
            storage,
            x,
            weight,
            y: dy,
            accumulate,
        }));
        device.play(&tape);
        near(&device.floats(result), expected, 1e-5);
    }
}
