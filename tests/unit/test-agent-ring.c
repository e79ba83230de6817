/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/ring.h"
#include "tests/unit/test.h"

/* All that is kept, decoded: the text of one type, and the number of frames. */
typedef struct Kept {
        char out[256 * 1024], err[256 * 1024];
        size_t n_out, n_err, n_frames;
} Kept;

static void read_all(const Ring *ring, Kept *ret) {
        uint8_t bytes[256 * 1024];
        const void *data[2];
        size_t n[2], n_pieces, n_all = 0;

        ret->n_out = ret->n_err = ret->n_frames = 0;
        n_pieces = ring_read(ring, data, n);
        for (size_t i = 0; i < n_pieces; i++) {
                memcpy(bytes + n_all, data[i], n[i]);
                n_all += n[i];
        }
        ASSERT_EQ(n_all, ring->n);

        for (size_t at = 0; at < n_all;) {
                size_t length = (size_t) bytes[at + 1] << 24 | (size_t) bytes[at + 2] << 16 |
                                (size_t) bytes[at + 3] << 8 | bytes[at + 4];
                char type = (char) bytes[at];

                ASSERT_TRUE(type == FRAME_STDOUT || type == FRAME_STDERR);
                ASSERT_TRUE(length > 0 && length <= RING_FRAME_MAX &&
                            at + FRAME_HEADER_LEN + length <= n_all);
                if (type == FRAME_STDOUT) {
                        memcpy(ret->out + ret->n_out, bytes + at + FRAME_HEADER_LEN, length);
                        ret->n_out += length;
                } else {
                        memcpy(ret->err + ret->n_err, bytes + at + FRAME_HEADER_LEN, length);
                        ret->n_err += length;
                }
                ret->n_frames++;
                at += FRAME_HEADER_LEN + length;
        }
}

static Kept kept;

TEST(empty) {
        const void *data[2];
        size_t n[2];
        Ring ring;

        ring_init(&ring, 8192);
        ASSERT_EQ(ring_read(&ring, data, n), 0);
        ASSERT_OK(ring_append(&ring, FRAME_STDOUT, "", 0));
        ASSERT_NULL(ring.data);
        ASSERT_EQ(ring_read(&ring, data, n), 0);
        ring_done(&ring);
}

TEST(neighbours_of_one_type_share_a_frame) {
        Ring ring;

        ring_init(&ring, 8192);
        ASSERT_OK(ring_append(&ring, FRAME_STDOUT, "ab", 2));
        ASSERT_OK(ring_append(&ring, FRAME_STDOUT, "cd", 2));
        ASSERT_OK(ring_append(&ring, FRAME_STDERR, "x", 1));
        ASSERT_OK(ring_append(&ring, FRAME_STDOUT, "e", 1));
        read_all(&ring, &kept);
        ASSERT_EQ(kept.n_frames, 3);
        ASSERT_EQ(kept.n_out, 5);
        ASSERT_EQ(memcmp(kept.out, "abcde", 5), 0);
        ASSERT_EQ(kept.n_err, 1);
        ring_done(&ring);
}

TEST(the_newest_bytes_stay) {
        static const size_t sizes[] = { RING_FRAME_MAX + FRAME_HEADER_LEN, 8192, 10000, 65536 };
        static const size_t pieces[] = { 1, 7, 4095, 4096, 4097, 100000 };

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
                for (size_t k = 0; k < ELEMENTSOF(pieces); k++) {
                        _cleanup_free_ uint8_t *data = malloc(pieces[k]);
                        size_t total = 0;
                        Ring ring;

                        ring_init(&ring, sizes[i]);
                        while (total < 150000) {
                                for (size_t j = 0; j < pieces[k]; j++)
                                        data[j] = (uint8_t) ((total + j) * 31 % 251);
                                ASSERT_OK(ring_append(&ring, FRAME_STDOUT, data, pieces[k]));
                                total += pieces[k];
                                ASSERT_TRUE(ring.n <= ring.size);
                        }

                        read_all(&ring, &kept);
                        ASSERT_TRUE(kept.n_out > 0 &&
                                    kept.n_out + 2 * (size_t) RING_FRAME_MAX > sizes[i] - 128);
                        for (size_t j = 0; j < kept.n_out; j++)
                                if ((uint8_t) kept.out[j] != (uint8_t) ((total - kept.n_out + j) * 31 % 251))
                                        fail_msg("size %zu, pieces %zu: byte %zu is wrong", sizes[i],
                                                 pieces[k], j);
                        ring_done(&ring);
                }
}

TEST(many_small_frames) {
        Ring ring;

        ring_init(&ring, 8192);
        for (unsigned i = 0; i < 10000; i++)
                ASSERT_OK(ring_append(&ring, i % 2 == 0 ? FRAME_STDOUT : FRAME_STDERR, "z", 1));
        read_all(&ring, &kept);
        ASSERT_EQ(kept.n_frames, 8192 / 6);
        ring_done(&ring);
}
