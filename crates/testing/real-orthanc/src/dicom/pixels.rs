//! Pixels that look like a slice through a body: an ellipse of soft tissue with a ring of bone, surrounded
//! by air, with noise.

/// Bits stored for each pixel.
pub(crate) const BITS: u16 = 12;
/// Noise added to each pixel: 0 to 63.
const NOISE: u64 = 0x003F_003F_003F_003F;

// Grey values: Hounsfield units + 1024.
const AIR: u16 = 10;
const FAT: u16 = 930;
const TISSUE: u16 = 1060;
const BONE: u16 = 2200;

/// A slice without noise, the basis of all slices.
#[derive(Clone, Debug)]
pub(crate) struct Phantom {
    rows: u16,
    columns: u16,
    pixels: Vec<u16>,
}

impl Phantom {
    pub(crate) fn new(rows: u16, columns: u16) -> Self {
        let place = |index: u16, count: u16| (f32::from(index) + 0.5) / f32::from(count) * 2.0 - 1.0;
        let at = |row: u16, column: u16| grey(place(column, columns), place(row, rows));
        let pixels = (0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect();
        Self { rows, columns, pixels }
    }

    pub(crate) fn rows(&self) -> u16 {
        self.rows
    }

    pub(crate) fn columns(&self) -> u16 {
        self.columns
    }

    /// The slice with noise that depends on `seed`.
    pub(crate) fn slice(&self, seed: u64) -> Vec<u16> {
        let mut pixels = self.pixels.clone();
        let mut state = seed;
        // One random number for four pixels, so that a file of 100 MB does not take seconds.
        for four in pixels.chunks_mut(4) {
            state = state.wrapping_add(GOLDEN);
            let noise = (mix(state) & NOISE).to_le_bytes();
            for (pixel, noise) in four.iter_mut().zip(noise.chunks_exact(2)) {
                *pixel += u16::from(noise[0]);
            }
        }
        pixels
    }
}

fn grey(x: f32, y: f32) -> u16 {
    let ellipse = |width: f32, height: f32| (x / width).powi(2) + (y / height).powi(2);
    let spine = x.powi(2) + (y - 0.42).powi(2);
    match () {
        () if ellipse(0.9, 0.7) > 1.0 => AIR,
        () if ellipse(0.84, 0.64) > 1.0 => FAT,
        () if (0.006..0.02).contains(&spine) => BONE,
        () => TISSUE,
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): each bit of the result depends on each bit of the
/// number.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
