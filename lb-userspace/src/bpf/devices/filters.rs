//! Filters of a clsact qdisc: on kernels without TCX, and elsewhere on a new
//! device until it has its TCX links.

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};

use super::{
    super::{
        error::chain,
        programs::{DeviceHooks, Programs},
    },
    attach::{CoverError, failed, vanished},
    rules::Device,
};

/// What serves a device that has filters.
pub(super) const NAME: &str = "clsact";

/// Where our filters stand in a clsact qdisc: fixed, so that the next agent
/// replaces them in place. The number only has to be one that nobody else uses.
const PRIORITY: u16 = 0xba5c;
const HANDLE: TcHandle = TcHandle::new(0, 0xba5c);

/// Puts filters on a device, in the place of ours that are there. Replies first: a
/// flow that is translated on its way in must find its way back.
pub(super) fn cover(
    programs: &Programs,
    device: &Device,
    hooks: DeviceHooks,
) -> Result<(), CoverError> {
    let mut new = true;
    match qdisc_add_clsact(&device.name) {
        Ok(()) => {}
        Err(error) => match netlink_errno(&error) {
            Some(libc::EEXIST) => new = false,
            errno if vanished(errno) => return Err(CoverError::Gone),
            _ => return Err(failed(NAME, &chain(&error))),
        },
    }
    let both = [
        (TcAttachType::Egress, hooks.egress),
        (TcAttachType::Ingress, hooks.ingress),
    ];
    for (direction, name) in both {
        let filtered = programs.classifier(name).and_then(|mut program| match new {
            true => add(&mut program, &device.name, direction),
            false => replace(&mut program, &device.name, direction),
        });
        filtered.map_err(|error| {
            let errno = program_errno(&error);
            if vanished(errno) {
                CoverError::Gone
            } else {
                failed(name, &chain(&error))
            }
        })?;
    }
    Ok(())
}

/// Puts a program into a new filter of a direction.
fn add(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<(), ProgramError> {
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: PRIORITY,
        handle: HANDLE,
        classid: None,
    });
    let link = program.attach_with_options(device, direction, options)?;
    // A filter stays when the agent goes; aya's link would take it along.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Puts a program into our filter of a direction: in the place of the one that
/// is there, which the kernel does atomically, else into a new one.
fn replace(
    program: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<(), ProgramError> {
    let present = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None)?;
    match program.attach_to_link(present) {
        Err(error) if program_errno(&error) == Some(libc::ENOENT) => {
            add(program, device, direction)
        }
        Err(error) => Err(error),
        Ok(link) => {
            std::mem::forget(program.take_link(link)?);
            Ok(())
        }
    }
}

/// Removes our filters from a device; whether there were any.
pub(super) fn remove(device: &str) -> bool {
    let mut any = false;
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        let link = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None);
        if let Ok(link) = link {
            // ENOENT and EINVAL: no such filter, no such qdisc.
            any |= link.detach().is_ok();
        }
    }
    any
}

fn netlink_errno(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn program_errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(error) => netlink_errno(error),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
