//! The pickle inside, interpreted and never executed: nothing in it is called.

use std::collections::HashMap;
use std::rc::Rc;

use super::view::{MAX_RANK, StorageId, StridedView};
use super::{TorchDtype, TorchError, quoted};

/// Tuples are dropped recursively, so their nesting is bounded; a tensor's pickle has two levels.
const MAX_DEPTH: u8 = 16;
/// Objects on the stack and in the memo together.
const MAX_OBJECTS: usize = 50_000;

/// A Python object, as far as a tensor's pickle needs it. Clones are cheap: the memo is full of them.
#[derive(Debug, Clone)]
pub enum Value<'p> {
    Mark,
    Int(i64),
    Text(&'p str),
    /// Items, and the levels of tuples they make.
    Tuple(Rc<[Value<'p>]>, u8),
    Global(Global),
    Storage(StorageId),
    Tensor(Rc<StridedView>),
    /// Only its Python type matters.
    Other(&'static str),
}

/// The Python names a tensor's pickle may mention.
#[derive(Debug, Clone, Copy)]
pub enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    StorageClass(Result<TorchDtype, &'static str>),
}

impl Value<'_> {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Int(_) => "int",
            Self::Text(_) => "str",
            Self::Tuple(..) => "tuple",
            Self::Global(_) => "function or class",
            Self::Storage(_) => "torch storage",
            Self::Tensor(_) => "tensor",
            Self::Other(kind) => kind,
        }
    }
}

impl Global {
    fn find(module: &str, name: &str) -> Result<Self, TorchError> {
        let storage = match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => return Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Ok(Self::RebuildParameter),
            ("collections", "OrderedDict") => return Ok(Self::OrderedDict),
            ("torch", "HalfStorage") => Ok(TorchDtype::Float16),
            ("torch", "BFloat16Storage") => Ok(TorchDtype::BFloat16),
            ("torch", "FloatStorage") => Ok(TorchDtype::Float32),
            ("torch", "DoubleStorage") => Ok(TorchDtype::Float64),
            ("torch", "LongStorage") => Err("int64"),
            ("torch", "IntStorage") => Err("int32"),
            ("torch", "ShortStorage") => Err("int16"),
            ("torch", "CharStorage") => Err("int8"),
            ("torch", "ByteStorage") => Err("uint8"),
            ("torch", "BoolStorage") => Err("bool"),
            ("torch", "ComplexFloatStorage") => Err("complex64"),
            ("torch", "ComplexDoubleStorage") => Err("complex128"),
            _ => {
                return Err(TorchError::Global(format!("{}.{}", quoted(module), quoted(name))));
            }
        };
        Ok(Self::StorageClass(storage))
    }
}

/// Python's pickle machine, reduced to what builds a tensor. Opcodes:
/// <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.
pub struct Unpickler<'p> {
    pickle: &'p [u8],
    offset: usize,
    stack: Vec<Value<'p>>,
    memo: HashMap<u32, Value<'p>>,
}

impl<'p> Unpickler<'p> {
    pub fn load(pickle: &'p [u8]) -> Result<Value<'p>, TorchError> {
        let mut machine = Self { pickle, offset: 0, stack: Vec::new(), memo: HashMap::new() };
        loop {
            match machine.byte()? {
                b'.' => return machine.pop(),
                opcode => machine.step(opcode)?,
            }
            if machine.stack.len() + machine.memo.len() > MAX_OBJECTS {
                return Err(machine.unexpected("objects without end", "the dozen of a tensor"));
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), TorchError> {
        let value = match opcode {
            0x80 => return self.byte().map(drop),              // PROTO
            0x95 => return self.array::<8>().map(drop),        // FRAME
            b'q' | b'r' | 0x94 => return self.memoize(opcode), // BINPUT, LONG_BINPUT, MEMOIZE
            // What fills a list, dict or object does not matter: APPEND, BUILD, SETITEM, SETITEMS.
            b'a' | b'b' => return self.pop().map(drop),
            b's' => return self.pop().and(self.pop()).map(drop),
            b'e' | b'u' => return self.pop_to_mark().map(drop),
            b'h' | b'j' => self.recall(opcode)?, // BINGET, LONG_BINGET
            b'(' => Value::Mark,
            b'N' => Value::Other("None"),
            b']' => Value::Other("list"),
            b'}' => Value::Other("dict"),
            0x88 | 0x89 => Value::Other("bool"),
            b'G' => self.array::<8>().map(|_| Value::Other("float"))?,
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.long()?,                           // LONG1
            b'X' | 0x8c => Value::Text(self.text(opcode)?), // BINUNICODE, SHORT_BINUNICODE
            b')' => self.tuple(Vec::new())?,
            0x85..=0x87 => self.short_tuple(opcode - 0x84)?, // TUPLE1 to TUPLE3
            b't' => {
                let items = self.pop_to_mark()?;
                self.tuple(items)?
            }
            b'c' => Value::Global(Global::find(self.line()?, self.line()?)?), // GLOBAL
            0x93 => self.stack_global()?,
            b'Q' => self.storage()?, // BINPERSID
            b'R' => self.call()?,    // REDUCE
            _ => {
                let found = format!("opcode {opcode:#04x}");
                return Err(self.unexpected(found, "one that torch.save writes for a tensor"));
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<Value<'p>, TorchError> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => Global::find(module, name).map(Value::Global),
            (other, _) => Err(self.unexpected(other.kind(), "the name of a global")),
        }
    }

    fn storage(&mut self) -> Result<Value<'p>, TorchError> {
        if let Value::Tuple(id, _) = self.pop()?
            && let [Value::Text("storage"), class, Value::Text(key), _device, numel] = &*id
            && let Value::Global(Global::StorageClass(dtype)) = *class
        {
            let numel = self.size(numel)?;
            return Ok(Value::Storage(StorageId { dtype, key: Rc::from(*key), numel }));
        }
        Err(self.unexpected("another persistent id", "('storage', class, key, device, numel)"))
    }

    /// Stands in for the call of one of the known globals.
    fn call(&mut self) -> Result<Value<'p>, TorchError> {
        let (Value::Tuple(arguments, _), Value::Global(callable)) = (self.pop()?, self.pop()?) else {
            return Err(self.unexpected("a call of something else", "a function and its arguments"));
        };
        match (callable, &*arguments) {
            (Global::OrderedDict, _) => Ok(Value::Other("OrderedDict")),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), _requires_grad, _hooks]) => Ok(tensor.clone()),
            // A seventh argument would be metadata that changes the values: a pending negation.
            (Global::RebuildTensor, [Value::Storage(storage), offset, shape, strides, _requires_grad, _hooks]) => {
                Ok(Value::Tensor(Rc::new(StridedView {
                    storage: storage.clone(),
                    offset: self.size(offset)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                })))
            }
            _ => Err(self.unexpected("a call with other arguments", "those of a plain tensor")),
        }
    }

    fn sizes(&self, tuple: &Value) -> Result<Vec<usize>, TorchError> {
        match tuple {
            Value::Tuple(items, _) if items.len() <= MAX_RANK => items.iter().map(|item| self.size(item)).collect(),
            other => Err(self.unexpected(other.kind(), "a tuple of at most 64 sizes")),
        }
    }

    fn size(&self, value: &Value) -> Result<usize, TorchError> {
        let Value::Int(size) = value else {
            return Err(self.unexpected(value.kind(), "a size"));
        };
        usize::try_from(*size).map_err(|_| self.unexpected(size.to_string(), "a size of 0 or more"))
    }

    fn short_tuple(&mut self, length: u8) -> Result<Value<'p>, TorchError> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.tuple(items)
    }

    fn tuple(&self, items: Vec<Value<'p>>) -> Result<Value<'p>, TorchError> {
        let levels = |item: &Value| {
            if let Value::Tuple(_, levels) = item { *levels } else { 0 }
        };
        match items.iter().map(levels).max().unwrap_or(0) + 1 {
            levels if levels <= MAX_DEPTH => Ok(Value::Tuple(items.into(), levels)),
            _ => Err(self.unexpected("tuples nested without end", "two levels")),
        }
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), TorchError> {
        let slot = self.slot(opcode)?;
        let value = self.pop()?;
        self.memo.insert(slot, value.clone());
        self.stack.push(value);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<Value<'p>, TorchError> {
        let slot = self.slot(opcode)?;
        let value = self.memo.get(&slot).cloned();
        value.ok_or_else(|| self.unexpected(format!("memo slot {slot}"), "one in use"))
    }

    fn slot(&mut self, opcode: u8) -> Result<u32, TorchError> {
        match opcode {
            b'q' | b'h' => self.byte().map(u32::from),
            b'r' | b'j' => self.array().map(u32::from_le_bytes),
            _ => Ok(u32::try_from(self.memo.len()).unwrap_or(u32::MAX)),
        }
    }

    fn pop(&mut self) -> Result<Value<'p>, TorchError> {
        match self.stack.pop() {
            None | Some(Value::Mark) => Err(self.unexpected("an empty stack", "an object")),
            Some(value) => Ok(value),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'p>>, TorchError> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let mark = mark.ok_or_else(|| self.unexpected("no mark", "a mark on the stack"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.truncate(mark);
        Ok(items)
    }

    /// A two's complement integer with its length before it; all that matters fit in 64 bits.
    fn long(&mut self) -> Result<Value<'p>, TorchError> {
        let length = self.byte()?;
        let digits = self.take(length.into())?;
        let mut wide = if digits.last() >= Some(&0x80) { [0xff; 8] } else { [0; 8] };
        let Some(low) = wide.get_mut(..digits.len()) else {
            return Ok(Value::Other("long int"));
        };
        low.copy_from_slice(digits);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, opcode: u8) -> Result<&'p str, TorchError> {
        let length = match opcode {
            b'X' => u32::from_le_bytes(self.array()?),
            _ => self.byte()?.into(),
        };
        let text = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        std::str::from_utf8(text).map_err(|error| self.unexpected(error.to_string(), "UTF-8"))
    }

    /// Text up to the next newline.
    fn line(&mut self) -> Result<&'p str, TorchError> {
        let mut rest = self.pickle.iter().skip(self.offset);
        let length = rest.position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.unexpected("its end", "a newline"))?)?;
        self.offset += 1;
        std::str::from_utf8(line).map_err(|error| self.unexpected(error.to_string(), "UTF-8"))
    }

    fn byte(&mut self) -> Result<u8, TorchError> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        self.take(N)?.try_into().map_err(|_| self.unexpected("its end", "more of it"))
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], TorchError> {
        let rest = self.pickle.get(self.offset..).and_then(|rest| rest.get(..length));
        let taken = rest.ok_or_else(|| self.unexpected("its end", "more of it"))?;
        self.offset += length;
        Ok(taken)
    }

    fn unexpected(&self, found: impl Into<String>, expected: &'static str) -> TorchError {
        TorchError::Pickle { offset: self.offset, found: found.into(), expected }
    }
}
