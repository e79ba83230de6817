/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "worker/kernel-image.h"
#include "worker/run.h"

#define KERNEL_IMAGE_MAX (256 * MIB)
/* the unpacked size behind the payload, little-endian, but for gzip which ends with it anyway */
#define SIZE_TRAILER_LEN 4U

/* The setup header, Documentation/arch/x86/boot.rst. */
enum {
        SETUP_SECTORS = 0x1f1,
        SETUP_MAGIC = 0x202,
        SETUP_VERSION = 0x206,
        SETUP_PAYLOAD_OFFSET = 0x248,
        SETUP_PAYLOAD_LENGTH = 0x24c,
        SETUP_END = 0x250,
        SETUP_SECTOR_LEN = 512,
};

static uint32_t get_u32(const uint8_t *p) {
        uint32_t v;

        memcpy(&v, p, sizeof(v));
        return le32toh(v);
}

int kernel_find_payload(const uint8_t *image, size_t n, size_t *ret_offset, size_t *ret_n) {
        size_t offset, length, sectors;

        if (n < SETUP_END || memcmp(image + SETUP_MAGIC, "HdrS", 4) != 0 ||
            (image[SETUP_VERSION] | image[SETUP_VERSION + 1] << 8) < 0x208)
                return -EINVAL;

        sectors = image[SETUP_SECTORS] != 0 ? image[SETUP_SECTORS] : 4;
        offset = (sectors + 1) * SETUP_SECTOR_LEN + get_u32(image + SETUP_PAYLOAD_OFFSET);
        length = get_u32(image + SETUP_PAYLOAD_LENGTH);
        if (offset >= n || length > n - offset || length <= SIZE_TRAILER_LEN)
                return -EINVAL;

        *ret_offset = offset;
        *ret_n = length;
        return 0;
}

const char* kernel_payload_tool(const uint8_t *data, size_t n) {
        static const struct {
                const char *tool;
                uint8_t magic[6];
                size_t n;
        } formats[] = {
                { "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4 }, /* legacy frames */
                { "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6 },
                { "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4 },
                { "gzip", { 0x1f, 0x8b, 0x08 }, 3 },
        };

        for (size_t i = 0; i < ELEMENTSOF(formats); i++)
                if (n >= formats[i].n && memcmp(data, formats[i].magic, formats[i].n) == 0)
                        return formats[i].tool;

        return NULL;
}

static int write_new(const char *path, const void *data, size_t n) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

        return fd < 0 ? -errno : write_all(fd, data, n);
}

static int check_elf(int fd, uint64_t size, Fault *reterr) {
        char magic[4];
        struct stat st;

        if (fstat(fd, &st) < 0)
                return fault_set_errno(reterr, errno, "Failed to look at the unpacked kernel");
        if (pread(fd, magic, sizeof(magic), 0) != sizeof(magic) || memcmp(magic, "\177ELF", 4) != 0 ||
            (uint64_t) st.st_size != size)
                return fault_set(reterr, FAULT_INTERNAL,
                                 "The unpacked kernel is no ELF file of %" PRIu64 " bytes.", size);

        return 0;
}

int kernel_unpack(const char *vmlinuz, const char *vmlinux, const char *scratch, Fault *reterr) {
        _cleanup_free_ char *image = NULL, *payload = strjoin(scratch, "/payload");
        size_t n_image, offset, n;
        _cleanup_close_ int fd = -EBADF;
        const uint8_t *data;
        const char *tool;
        uint64_t size;
        int r;

        if (!payload)
                return fault_set_errno(reterr, -ENOMEM, "Failed to unpack the kernel");
        r = read_file_at(AT_FDCWD, vmlinuz, KERNEL_IMAGE_MAX, &image, &n_image);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read '%s'", vmlinuz);
        r = kernel_find_payload((const uint8_t *) image, n_image, &offset, &n);
        if (r < 0)
                return fault_set(reterr, FAULT_INTERNAL, "'%s' is no Linux kernel that can be unpacked.",
                                 vmlinuz);

        data = (const uint8_t *) image + offset;
        tool = kernel_payload_tool(data, n);
        if (!tool)
                return fault_set(reterr, FAULT_INTERNAL, "The kernel in '%s' is packed in an unknown way.",
                                 vmlinuz);

        size = get_u32(data + n - SIZE_TRAILER_LEN);
        r = write_new(payload, data, streq(tool, "gzip") ? n : n - SIZE_TRAILER_LEN);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to write '%s'", payload);

        fd = open(vmlinux, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                return fault_set_errno(reterr, errno, "Failed to make '%s'", vmlinux);
        r = run_tool((char *const[]) { (char *) tool, (char *) "-dc", payload, NULL },
                     &(RunOptions) { .stdout_fd = fd }, reterr);
        (void) unlink(payload);
        if (r < 0)
                return r;
        return check_elf(fd, size, reterr);
}
