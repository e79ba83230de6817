/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A bzImage taken apart: the kernel proper, uncompressed, which boots a fifth faster than its
 * self-extracting shell. */

#include "basic/fault.h"
#include "basic/macro.h"

/* Where the compressed kernel lies in a bzImage of n bytes (x86 boot protocol 2.08). -EINVAL. */
int kernel_find_payload(const uint8_t *image, size_t n, size_t *ret_offset, size_t *ret_n);
/* The tool that unpacks data beginning with these bytes: "lz4", "xz", "zstd", "gzip"; NULL: unknown. */
const char* kernel_payload_tool(const uint8_t *data, size_t n);

/* Unpacks the file vmlinuz into the new file vmlinux; scratch: a directory for the payload. Checks that an
 * ELF file came out. */
int kernel_unpack(const char *vmlinuz, const char *vmlinux, const char *scratch, Fault *reterr);
