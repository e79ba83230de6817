/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/fd.h"
#include "basic/sha256.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

/* FIPS 180-4 examples, and nothing at all. */
static const struct {
        const char *text, *hex;
} cases[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
};

TEST(data_and_fd) {
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_close_ int fd = memfd_from("x", cases[i].text, strlen(cases[i].text));
                uint8_t digest[SHA256_LEN];
                char hex[SHA256_HEX_LEN + 1];

                ASSERT_OK(sha256_data(cases[i].text, strlen(cases[i].text), digest));
                hex_encode(digest, sizeof(digest), hex);
                ASSERT_STREQ(hex, cases[i].hex);

                ASSERT_OK(sha256_fd(fd, digest));
                hex_encode(digest, sizeof(digest), hex);
                ASSERT_STREQ(hex, cases[i].hex);
                ASSERT_EQ(lseek(fd, 0, SEEK_CUR), 0);
        }
}

TEST(large_file) {
        _cleanup_free_ char *zeros = calloc(1, 300 * KIB);
        _cleanup_close_ int fd = memfd_from("x", zeros, 300 * KIB);
        uint8_t a[SHA256_LEN], b[SHA256_LEN];

        ASSERT_OK(sha256_data(zeros, 300 * KIB, a));
        ASSERT_OK(sha256_fd(fd, b));
        ASSERT_EQ(memcmp(a, b, sizeof(a)), 0);
        ASSERT_EQ(sha256_fd(-EBADF, b), -EBADF);
}
