//! Files that are kept up to date for the worker, which may not write them itself.

use super::{Master, child::Standing};
use crate::process::{
    channel::Kind,
    keep::{self, Piece, Receipt},
    program::Program,
    resources::{Answer, Question},
};

impl<P: Program> Master<P> {
    /// A worker sent a piece of what is to be in a file.
    pub(super) fn keep(&mut self, index: usize, message: &[u8]) {
        // Whoever cannot even say that has nothing to say.
        let Ok(piece) = Piece::decode(message) else { return };
        let (path, number) = (piece.path.clone(), piece.number);
        let fault = self.take_piece(index, piece).err().unwrap_or_default().into_bytes();
        let receipt = Receipt { path, number, fault };
        self.workers[index].send(Kind::Kept, &receipt.encode(), &[], &self.birth.log);
    }

    fn take_piece(&mut self, index: usize, piece: Piece) -> Result<(), String> {
        let path = piece.path.clone();
        let shown = path.display();
        // Only what a configuration names is written, and only for those who serve it.
        let pending = self.pending.as_mut().map(|pending| &mut pending.cycle);
        let mut cycles: Vec<_> = pending.into_iter().chain([&mut self.cycle]).collect();
        cycles.retain(|cycle| cycle.needs.kept.contains(&path));
        if cycles.is_empty() {
            return Err(format!("\"{shown}\" is not kept: no configuration in force names it"));
        }
        if self.workers[index].standing == Standing::Leaving {
            return Err(format!("\"{shown}\" is not kept: another worker process has taken over"));
        }
        let whole = self.arriving.take(piece).map_err(|error| format!("\"{shown}\" is not kept: {error}"))?;
        let Some(text) = whole else { return Ok(()) };
        keep::replace(&path, &text)?;
        // A worker that has to be started again begins with what is in the file now.
        for cycle in cycles {
            cycle.bundle.answers.insert(Question::Read(path.clone()), Answer::Read(Ok(text.as_slice().into())));
        }
        Ok(())
    }
}
