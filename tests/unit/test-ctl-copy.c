/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's end of copies, with archives as an attacker's agent would send them. */

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "ctl/copy-child.h"
#include "ctl/progress.h"
#include "test.h"

typedef struct Entry {
        const char *name;
        char type; /* ustar: '0' file, '2' symlink, '1' hard link, '5' directory, '3' device */
        const char *link, *data;
        unsigned mode;
} Entry;

static void put_octal(char *field, int width, size_t value) {
        char text[32];

        (void) snprintf(text, sizeof(text), "%0*zo", width - 1, value);
        memcpy(field, text, (size_t) width);
}

/* One header and its data, POSIX.1-1988. */
static void put_entry(char **p, const Entry *e) {
        size_t n = e->data ? strlen(e->data) : 0, sum = 0;
        char *h = *p;

        memset(h, 0, 512 + (n > 0 ? 512 : 0));
        (void) snprintf(h, 100, "%s", e->name);
        put_octal(h + 100, 8, e->mode ?: 0644);
        put_octal(h + 108, 8, 0);
        put_octal(h + 116, 8, 0);
        put_octal(h + 124, 12, n);
        put_octal(h + 136, 12, 0);
        memset(h + 148, ' ', 8);
        h[156] = e->type;
        (void) snprintf(h + 157, 100, "%s", e->link ?: "");
        memcpy(h + 257, "ustar\00000", 8);
        for (size_t i = 0; i < 512; i++)
                sum += (unsigned char) h[i];
        put_octal(h + 148, 7, sum);
        if (n > 0)
                memcpy(h + 512, e->data, n);
        *p += 512 + (n > 0 ? 512 : 0);
}

typedef struct Rig {
        char top[32]; /* holds "in", which is unpacked in, and "outside" */
        int top_fd, in_fd;
} Rig;

static void rig_init(Rig *r) {
        int fd;

        (void) snprintf(r->top, sizeof(r->top), "/tmp/test-ctl-XXXXXX");
        ASSERT_NOT_NULL(mkdtemp(r->top));
        r->top_fd = open(r->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ASSERT_OK(mkdirat(r->top_fd, "outside", 0755));
        r->in_fd = open_dir_at(r->top_fd, "in", true, 0755);
        ASSERT_OK(symlinkat("../outside", r->in_fd, "there")); /* by an earlier copy */
        fd = openat(r->in_fd, "old", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ASSERT_OK(write_all(fd, "old", 3));
        close_fd(fd);
}

static unsigned count(const Rig *r, const char *name) {
        _cleanup_free_ char *command = asprintf_null("ls -A %s/%s | wc -l", r->top, name);
        FILE *f = popen(command, "r");
        unsigned n = 99;

        ASSERT_NOT_NULL(f);
        ASSERT_EQ(fscanf(f, "%u", &n), 1);
        (void) pclose(f);
        return n;
}

static void rig_done(Rig *r) {
        close_fd(r->in_fd);
        close_fd(r->top_fd);
        r->top_fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ASSERT_OK(remove_tree_at(r->top_fd, r->top + strlen("/tmp/")));
        close_fd(r->top_fd);
}

/* What unpacking these says; NULL: all is well. */
static char* unpack(Rig *r, const Entry *entries, const char *name, bool cut) {
        CopyEnd c = { .work = copy_unpack, .fd = r->in_fd, .name = name, .target = name ? "target" : NULL };
        char archive[16 * 1024] = {}, *p = archive, *reason = NULL;
        int fd, k;

        for (const Entry *e = entries; e->name; e++)
                put_entry(&p, e);
        ASSERT_OK(copy_end_start(&c, &fd));
        (void) signal(SIGPIPE, SIG_IGN);
        (void) write_all(fd, archive, cut ? 513 : (size_t) (p - archive) + 1024);
        close_fd(fd);
        k = copy_end_wait(&c, cut, &reason);
        ASSERT_EQ(k < 0, reason != NULL);
        return reason;
}

TEST(hostile_trees) {
        static const struct {
                const char *what;
                Entry entries[4];
        } cases[] = {
                { "dots", { { "../outside/x", '0', NULL, "x" } } },
                { "dots inside", { { "a/", '5', .mode = 0755 }, { "a/../../outside/x", '0', NULL, "x" } } },
                { "absolute", { { "/tmp/wrenn-test-escaped", '0', NULL, "x" } } },
                { "through a link of its own", { { "l", '2', "../outside" }, { "l/x", '0', NULL, "x" } } },
                { "through a link that is there", { { "there/x", '0', NULL, "x" } } },
                { "hard link", { { "h", '1', "../outside" } } },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *reason = NULL;
                Rig r;

                rig_init(&r);
                reason = unpack(&r, cases[i].entries, NULL, false);
                if (count(&r, "outside") > 0 || access("/tmp/wrenn-test-escaped", F_OK) >= 0)
                        fail_msg("%s: something is outside", cases[i].what);
                if (!reason)
                        fail_msg("%s: was taken", cases[i].what);
                rig_done(&r);
        }
}

/* Instead of the one file that was asked for. */
TEST(hostile_files) {
        static const Entry other[] = { { "other", '0', NULL, "x" }, {} },
                           link[] = { { "file", '2', "/etc/passwd" }, {} },
                           directory[] = { { "file/", '5', .mode = 0755 },
                                           { "file/x", '0', NULL, "x" },
                                           {} },
                           device[] = { { "file", '3' }, {} }, nothing[] = { {} };
        static const Entry *const cases[] = { other, link, directory, device, nothing };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *reason = NULL;
                Rig r;

                rig_init(&r);
                reason = unpack(&r, cases[i], "file", false);
                if (!reason)
                        fail_msg("case %zu was taken", i);
                ASSERT_EQ(count(&r, "in"), 2); /* what was there; nothing temporary */
                rig_done(&r);
        }
}

TEST(file_gets_its_name) {
        static const Entry entries[] = { { "file", '0', NULL, "new", 06755 },
                                         { "more", '0', NULL, "x" },
                                         {} };
        _cleanup_free_ char *reason = NULL, *text = NULL;
        struct stat st;
        Rig r;

        rig_init(&r);
        reason = unpack(&r, entries, "file", false);
        ASSERT_NULL(reason);
        ASSERT_EQ(count(&r, "in"), 3);
        ASSERT_OK(read_file_at(r.in_fd, "target", 100, &text, NULL));
        ASSERT_STREQ(text, "new");
        ASSERT_OK(fstatat(r.in_fd, "target", &st, 0));
        ASSERT_EQ(st.st_mode & 07777, 0755);
        rig_done(&r);
}

TEST(archive_that_is_cut) {
        static const Entry entries[] = { { "file", '0', NULL, "new" }, {} };
        _cleanup_free_ char *reason = NULL;
        Rig r;

        rig_init(&r);
        reason = unpack(&r, entries, NULL, true);
        ASSERT_NOT_NULL(reason);
        rig_done(&r);
}

/* The other side hangs up in the middle of a large file: nothing to say, and nobody waits. */
TEST(packing_for_nobody) {
        _cleanup_free_ char *reason = NULL;
        CopyEnd c = { .work = copy_pack, .writes = true, .name = "big" };
        int fd;
        Rig r;

        rig_init(&r);
        c.fd = openat(r.top_fd, "outside/big", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        for (unsigned i = 0; i < 300; i++) /* more than a pipe holds, and no hole */
                ASSERT_OK(write_all(c.fd, r.top, sizeof(r.top)) < 0 ? -1
                                                                    : (int) lseek(c.fd, 4096, SEEK_CUR));
        ASSERT_OK(copy_end_start(&c, &fd));
        close_fd(fd);
        ASSERT_EQ(copy_end_wait(&c, true, &reason), -EPIPE);
        ASSERT_NULL(reason);
        close_fd(c.fd);
        rig_done(&r);
}

TEST(progress) {
        static const struct {
                const char *name;
                uint64_t bytes, total, usec;
                const char *line;
        } cases[] = {
                { "file", 0, 0, 0, "file                           0B       0B/s" },
                { "file", 3 * MIB, 0, 2 * USEC_PER_SEC, "file                           3M     1.5M/s" },
                { "file", MIB, 4 * MIB, USEC_PER_SEC,
                  "file                     [#####               ]  25%       1M       1M/s" },
                { "file", 5 * MIB, 4 * MIB, USEC_PER_SEC,
                  "file                     [####################] 100%       5M       5M/s" },
                { "a\033[2J", 1, 0, 10, "a\\x1b[2J                       1B       0B/s" },
                { "0123456789012345678901234567890", 1, 0, 10,
                  "012345678901234567890123       1B       0B/s" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *line = progress_line(cases[i].name, cases[i].bytes, cases[i].total,
                                                          cases[i].usec);

                ASSERT_STREQ(line, cases[i].line);
        }
}
