/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* SHA-256 by GnuTLS; the one place that includes it. A library of its own (sha256_dep), so that only who
 * needs it links it. */

#include "basic/macro.h"

#define SHA256_LEN     32U
#define SHA256_HEX_LEN (2 * SHA256_LEN)

/* Digest of n bytes. 0 or -EIO. */
int sha256_data(const void *data, size_t n, uint8_t ret[static SHA256_LEN]);

/* SHA-1, for the handshake of WebSockets only. */
#define SHA1_LEN 20U
int sha1_data(const void *data, size_t n, uint8_t ret[static SHA1_LEN]);

/* Digest of a whole file, read with pread(2) from its start; the offset of fd stays. 0 or -errno. Blocking:
 * not for daemons. */
int sha256_fd(int fd, uint8_t ret[static SHA256_LEN]);
