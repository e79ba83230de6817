/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The kernel modules a guest needs before it has a root file system, in the order in which they load. The
 * package brings no modules.dep (its scripts make it, and we run none): what a module depends on stands in
 * its own ".modinfo".
 */

#include "basic/fault.h"
#include "basic/macro.h"
#include "worker/cpio.h"

/* "depends=" of the ELF file, comma-separated; "" when it has none. Borrowed from data. -EINVAL when it is
 * no module. */
int module_depends(const uint8_t *data, size_t n, const char **ret);
/*
 * Length without the appended signature. The whole initrd is the host's word to its guest: checking each
 * module would cost an emulated guest a noticeable part of its boot.
 */
size_t module_unsigned_length(const uint8_t *data, size_t n);

/*
 * Adds "modules/…" and "modules/order" to the archive. directory: …/lib/modules/<version>. names: wanted
 * modules in the preferred order; those they depend on come before them, those built into the kernel are
 * left out. scratch: for unpacking compressed ones.
 */
int modules_archive(const char *directory, const char *const *names, const char *scratch, Cpio *cpio,
                    Fault *reterr);
