//! The emulated device as what an engine runs on.

use std::any::Any;
use std::sync::Arc;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emulated::Emulated;
use crate::exec::gpu::tape::{Place, Region, Tape};

impl Device for Emulated {
    type Program = (Tape, Option<Arc<Vec<u8>>>);

    type Held = Vec<u8>;

    fn arithmetic(&self) -> String {
        "emulated".to_owned()
    }

    fn remark(&self) -> Option<String> {
        None
    }

    fn reserve(&mut self, bytes: usize, kept: usize) -> Result<(), DeviceFault> {
        let place = |bytes| Place { region: Region::Arena, offset: 0, bytes };
        let before = if kept == 0 { Vec::new() } else { self.bytes(place(kept)).to_vec() };
        *self = Self::new();
        let arena = self.place(bytes);
        self.put_bytes(arena, &vec![0; bytes]);
        self.put_bytes(place(kept), &before);
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8], _: &Arc<dyn Any + Send + Sync>) -> Result<Option<Arc<Vec<u8>>>, DeviceFault> {
        Ok(Some(Arc::new(bytes.to_vec())))
    }

    fn prepare(&mut self, tape: &Tape, held: Option<&Arc<Vec<u8>>>) -> Result<Self::Program, DeviceFault> {
        let Tape { storage, ref commands, ref constants, scratch } = *tape;
        let tape = Tape { storage, commands: commands.clone(), constants: constants.clone(), scratch };
        Ok((tape, held.cloned()))
    }

    fn play(&mut self, (tape, held): &mut Self::Program) -> Result<(), DeviceFault> {
        if let Some(held) = held {
            self.memories.hold(held);
        }
        Self::play(self, tape);
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
