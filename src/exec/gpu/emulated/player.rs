//! The emulated device as what an engine runs on.

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emulated::Emulated;
use crate::exec::gpu::tape::{Place, Region, Tape};

impl Device for Emulated {
    type Program = Tape;

    fn reserve(&mut self, bytes: usize, kept: usize) -> Result<(), DeviceFault> {
        let place = |bytes| Place { region: Region::Arena, offset: 0, bytes };
        let before = if kept == 0 { Vec::new() } else { self.bytes(place(kept)).to_vec() };
        *self = Self::new();
        let arena = self.place(bytes);
        self.put_bytes(arena, &vec![0; bytes]);
        self.put_bytes(place(kept), &before);
        Ok(())
    }

    fn prepare(&mut self, tape: &Tape) -> Result<Tape, DeviceFault> {
        let Tape { storage, ref commands, ref constants, scratch } = *tape;
        Ok(Tape { storage, commands: commands.clone(), constants: constants.clone(), scratch })
    }

    fn play(&mut self, program: &Tape) -> Result<(), DeviceFault> {
        Self::play(self, program);
        Ok(())
    }

    fn write(&mut self, place: Place, bytes: &[u8]) -> Result<(), DeviceFault> {
        self.put_bytes(place.part(0, bytes.len()), bytes);
        Ok(())
    }

    fn read(&mut self, place: Place, bytes: &mut [u8]) -> Result<(), DeviceFault> {
        bytes.copy_from_slice(self.bytes(place.part(0, bytes.len())));
        Ok(())
    }
}
