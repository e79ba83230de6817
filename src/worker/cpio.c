/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/stat.h>

#include "worker/cpio.h"

#define CPIO_ALIGN 4U
#define CPIO_BLOCK 512U /* the end is padded to it */

static int cpio_write(Cpio *c, const void *data, size_t n) {
        if (n > 0 && fwrite(data, 1, n, c->file) != n)
                return -EIO;

        c->n += n;
        return 0;
}

static int cpio_pad(Cpio *c, size_t alignment) {
        static const char zeros[CPIO_BLOCK] = {};

        return cpio_write(c, zeros, (alignment - c->n % alignment) % alignment);
}

static int cpio_add(Cpio *c, const char *path, uint32_t mode, const void *data, size_t n, unsigned major,
                    unsigned minor) {
        char header[6 + 13 * 8 + 1];
        int r;

        if (n > UINT32_MAX)
                return -E2BIG;

        /* inode, mode, uid, gid, links, time, size, device of the file (2), device it is (2), length of the
         * name, check sum */
        (void) snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
                        c->inode++, mode, 0U, 0U, 1U, 0U, (uint32_t) n, 0U, 0U, major, minor,
                        (uint32_t) strlen(path) + 1, 0U);

        r = cpio_write(c, header, sizeof(header) - 1);
        if (r >= 0)
                r = cpio_write(c, path, strlen(path) + 1);
        if (r >= 0)
                r = cpio_pad(c, CPIO_ALIGN);
        if (r >= 0)
                r = cpio_write(c, data, n);
        if (r >= 0)
                r = cpio_pad(c, CPIO_ALIGN);
        return r;
}

int cpio_add_directory(Cpio *c, const char *path, mode_t mode) {
        return cpio_add(c, path, S_IFDIR | mode, NULL, 0, 0, 0);
}

int cpio_add_file(Cpio *c, const char *path, mode_t mode, const void *data, size_t n) {
        return cpio_add(c, path, S_IFREG | mode, data, n, 0, 0);
}

int cpio_add_device(Cpio *c, const char *path, mode_t mode, unsigned major, unsigned minor) {
        return cpio_add(c, path, S_IFCHR | mode, NULL, 0, major, minor);
}

int cpio_finish(Cpio *c) {
        int r;

        r = cpio_add(c, "TRAILER!!!", 0, NULL, 0, 0, 0);
        if (r >= 0)
                r = cpio_pad(c, CPIO_BLOCK);
        if (r >= 0 && fflush(c->file) != 0)
                r = -EIO;
        return r;
}
