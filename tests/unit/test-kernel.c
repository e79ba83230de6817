/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <elf.h>
#include <sys/stat.h>

#include "basic/strings.h"
#include "tests/unit/test.h"
#include "worker/cpio.h"
#include "worker/kernel-image.h"
#include "worker/kernel-modules.h"
#include "worker/kernel-package.h"

TEST(payload) {
        uint8_t image[4096] = {};
        size_t offset, n;

        ASSERT_EQ(kernel_find_payload(image, sizeof(image), &offset, &n), -EINVAL);
        memcpy(image + 0x202, "HdrS", 4);
        image[0x206] = 0x0f;
        image[0x207] = 0x02;
        image[0x1f1] = 1;
        image[0x248] = 0x10; /* behind boot sector and one setup sector */
        image[0x24c] = 0x20;
        ASSERT_OK(kernel_find_payload(image, sizeof(image), &offset, &n));
        ASSERT_EQ(offset, 1024 + 0x10);
        ASSERT_EQ(n, 0x20);
        ASSERT_EQ(kernel_find_payload(image, 1024 + 0x20, &offset, &n), -EINVAL); /* longer than the file */
        ASSERT_EQ(kernel_find_payload(image, 0x24f, &offset, &n), -EINVAL);
        memset(image + 0x248, 0xff, 8);
        ASSERT_EQ(kernel_find_payload(image, sizeof(image), &offset, &n), -EINVAL);
}

TEST(payload_tool) {
        ASSERT_STREQ(kernel_payload_tool((const uint8_t *) "\x02\x21\x4c\x18rest", 8), "lz4");
        ASSERT_STREQ(kernel_payload_tool((const uint8_t *) "\xfd"
                                                           "7zXZ\0",
                                         6),
                     "xz");
        ASSERT_STREQ(kernel_payload_tool((const uint8_t *) "\x28\xb5\x2f\xfd", 4), "zstd");
        ASSERT_STREQ(kernel_payload_tool((const uint8_t *) "\x1f\x8b\x08", 3), "gzip");
        ASSERT_NULL(kernel_payload_tool((const uint8_t *) "\x1f\x8b", 2));
        ASSERT_NULL(kernel_payload_tool((const uint8_t *) "BZh9....", 8));
}

/* An ELF file with .modinfo and .shstrtab. */
static size_t make_module(uint8_t *ret, const char *info, size_t n_info) {
        static const char names[] = "\0.modinfo\0.shstrtab";
        Elf64_Ehdr h = {
                .e_shoff = sizeof(h), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2
        };
        Elf64_Shdr sections[3] = {};
        size_t at = sizeof(h) + sizeof(sections);

        memcpy(h.e_ident, ELFMAG, SELFMAG);
        h.e_ident[EI_CLASS] = ELFCLASS64;
        sections[1] = (Elf64_Shdr) {
                .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = at, .sh_size = n_info
        };
        sections[2] = (Elf64_Shdr) {
                .sh_name = 10, .sh_type = SHT_STRTAB, .sh_offset = at + n_info, .sh_size = sizeof(names)
        };
        memcpy(ret, &h, sizeof(h));
        memcpy(ret + sizeof(h), sections, sizeof(sections));
        memcpy(ret + at, info, n_info);
        memcpy(ret + at + n_info, names, sizeof(names));
        return at + n_info + sizeof(names);
}

TEST(depends) {
        static const char info[] = "license=GPL\0alias=depends=no\0depends=virtio,virtio_ring\0name=x";
        static const char unterminated[] = { 'd', 'e', 'p', 'e', 'n', 'd', 's', '=' };
        uint8_t module[1024];
        const char *list;
        size_t n;

        n = make_module(module, info, sizeof(info));
        ASSERT_OK(module_depends(module, n, &list));
        ASSERT_STREQ(list, "virtio,virtio_ring");
        for (size_t cut = 0; cut < n; cut++)
                ASSERT_EQ(module_depends(module, cut, &list), -EINVAL);

        n = make_module(module, "name=x", 7);
        ASSERT_OK(module_depends(module, n, &list));
        ASSERT_STREQ(list, "");
        n = make_module(module, unterminated, sizeof(unterminated));
        ASSERT_EQ(module_depends(module, n, &list), -EINVAL);
        ASSERT_EQ(module_depends((const uint8_t *) "text", 4, &list), -EINVAL);
}

TEST(signature) {
        uint8_t module[200] = "begin";
        static const char mark[] = "~Module signature appended~\n";
        size_t n_mark = sizeof(mark) - 1, n = sizeof(module);

        ASSERT_EQ(module_unsigned_length(module, n), n);
        memcpy(module + n - n_mark, mark, n_mark);
        module[n - n_mark - 1] = 50;
        ASSERT_EQ(module_unsigned_length(module, n), n - n_mark - 12 - 50);
        module[n - n_mark - 4] = 0x80; /* more than there is: not cut */
        ASSERT_EQ(module_unsigned_length(module, n), n);
        ASSERT_EQ(module_unsigned_length(module + n - n_mark, n_mark), n_mark);
}

TEST(depends_of_the_package) {
        static const struct {
                const char *text, *want;
        } cases[] = {
                { "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n",
                  "linux-image-6.1.0-56-cloud-amd64" },
                { "x\n  PreDepends: linux-image-1\n  Depends: <linux-image>\n |Depends: linux-image-2\n",
                  "linux-image-2" },
                { "x\n  Recommends: linux-image-1\n", NULL },
                { "", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *name = kernel_package_parse_depends(cases[i].text);

                ASSERT_STREQ(name, cases[i].want);
        }
}

TEST(cpio) {
        _cleanup_free_ char *data = NULL;
        size_t n = 0;
        FILE *f = open_memstream(&data, &n);
        Cpio c = CPIO(f);

        ASSERT_OK(cpio_add_directory(&c, "dev", 0755));
        ASSERT_OK(cpio_add_file(&c, "init", 0755, "hello", 5));
        ASSERT_OK(cpio_add_device(&c, "dev/console", 0600, 5, 1));
        ASSERT_OK(cpio_finish(&c));
        ASSERT_EQ(fclose(f), 0);

        ASSERT_EQ(n % 512, 0);
        ASSERT_EQ(memcmp(data,
                         "070701"
                         "00000001"
                         "000041ED",
                         22),
                  0);
        ASSERT_STREQ(data + 110, "dev");
        /* 110 + 4 = 114, padded to 116; name at 116 + 110, data aligned to 4 */
        ASSERT_EQ(memcmp(data + 116,
                         "070701"
                         "00000002"
                         "000081ED",
                         22),
                  0);
        ASSERT_STREQ(data + 226, "init");
        ASSERT_EQ(memcmp(data + 232,
                         "hello\0\0\0"
                         "070701",
                         14),
                  0);
        ASSERT_NOT_NULL(memmem(data, n, "TRAILER!!!", 11));
}
