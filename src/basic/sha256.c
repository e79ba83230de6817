/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "basic/sha256.h"

int sha256_data(const void *data, size_t n, uint8_t ret[static SHA256_LEN]) {
        uint8_t digest[SHA256_LEN];

        if (gnutls_hash_fast(GNUTLS_DIG_SHA256, data, n, digest) < 0)
                return -EIO;
        memcpy(ret, digest, sizeof(digest));
        return 0;
}

int sha1_data(const void *data, size_t n, uint8_t ret[static SHA1_LEN]) {
        uint8_t digest[SHA1_LEN];

        if (gnutls_hash_fast(GNUTLS_DIG_SHA1, data, n, digest) < 0)
                return -EIO;
        memcpy(ret, digest, sizeof(digest));
        return 0;
}

/* Feeds the file into h. */
static int hash_fd(gnutls_hash_hd_t h, int fd) {
        _cleanup_free_ uint8_t *buffer = NULL;
        const size_t n_buffer = 128 * KIB;
        off_t offset = 0;

        buffer = malloc(n_buffer);
        if (!buffer)
                return -ENOMEM;

        for (;;) {
                ssize_t n = pread(fd, buffer, n_buffer, offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return 0;
                if (gnutls_hash(h, buffer, (size_t) n) < 0)
                        return -EIO;
                offset += n;
        }
}

int sha256_fd(int fd, uint8_t ret[static SHA256_LEN]) {
        uint8_t digest[SHA256_LEN];
        gnutls_hash_hd_t h;
        int r;

        if (gnutls_hash_init(&h, GNUTLS_DIG_SHA256) < 0)
                return -EIO;

        r = hash_fd(h, fd);
        gnutls_hash_deinit(h, digest);
        if (r < 0)
                return r;

        memcpy(ret, digest, sizeof(digest));
        return 0;
}
