/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which files of the host a program needs before it can run below an empty root: itself, its ELF
 * interpreter, the libraries of its dynamic section and theirs, found where the interpreter would look for
 * them; for QEMU also the accelerator module and the firmware it opens by name. Nothing is executed for it:
 * ELF headers are read. A few milliseconds; meant to be called at start-up and when a program changed, not
 * for each launch.
 */

#include "basic/fault.h"
#include "basic/macro.h"

/*
 * Appends to *paths (a string vector; NULL is the empty one) the absolute path of program and of all it
 * loads. What stands there already is not added again. The same paths are to be used inside the jail.
 * -ENOENT with a fault that names the program or the library that is missing, -ENOEXEC, -ENOMEM; *paths may
 * have grown then.
 */
int program_files(const char *program, char ***paths, Fault *reterr);

/*
 * The same for a QEMU system emulator (e.g. "/usr/bin/qemu-system-x86_64"): program_files() and its modules
 * and firmware for the microvm machine. accelerator: "tcg" or "kvm".
 */
int vmm_files_qemu(const char *program, const char *accelerator, char ***paths, Fault *reterr);

/* Turns paths into launcher arguments "--bind-ro=PATH:PATH", appended to *argv. 0 or -ENOMEM. */
int vmm_files_to_args(char *const *paths, char ***argv);

/*
 * A short text that changes when one of the files does (inode, size, times); to know when to compute again.
 * NULL on out of memory; a file that is gone counts as changed.
 */
char* vmm_files_stamp(char *const *paths);
