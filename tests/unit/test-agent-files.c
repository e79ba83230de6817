/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/file-entry.h"
#include "agent/file-job.h"
#include "agent/file-list.h"
#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "agent/request.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/unit/test.h"

TEST(resolve) {
        static const struct {
                const char *path, *home, *want, *message;
        } cases[] = {
                { "/a/../b//", "/root", "/a/../b//", NULL },
                { "~", "/root", "/root", NULL },
                { "~/x y", "/root", "/root/x y", NULL },
                { "x", "/root", "/root/x", NULL },
                { "x", "/", "/x", NULL },
                { "~/x", "/", "/x", NULL },
                { "~", "/", "/", NULL },
                { "./~", "/root", "/root/./~", NULL },
                { "\xff", "/root/", "/root/\xff", NULL },
                { "", "/root", NULL, "path: is required." },
                { "~other", "/root", NULL, "path: only '~' and '~/…' are known, not the homes of others." },
                { "~~", "/root", NULL, "path: only '~' and '~/…' are known, not the homes of others." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *path = NULL;

                ASSERT_EQ(file_path_resolve(cases[i].path, cases[i].home, &path, &fault),
                          cases[i].want ? 0 : -EINVAL);
                ASSERT_STREQ(path, cases[i].want);
                ASSERT_STREQ(fault.message, cases[i].message);
        }
}

TEST(resolve_long) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *path = NULL;
        char text[FILE_PATH_LEN_MAX + 1];

        memset(text, 'x', FILE_PATH_LEN_MAX);
        text[0] = '/';
        text[FILE_PATH_LEN_MAX] = 0;
        ASSERT_EQ(file_path_resolve(text, "/", &path, &fault), -EINVAL);
        ASSERT_FAULT(fault, FAULT_INVALID_ARGS, "path: expected less than 4096 bytes.");
        text[FILE_PATH_LEN_MAX - 1] = 0;
        ASSERT_OK(file_path_resolve(text, "/", &path, NULL));
}

TEST(split) {
        static const struct {
                const char *path, *parent, *name;
        } cases[] = {
                { "/a", "/", "a" },         { "/a/b", "/a/", "b" },  { "/a/b//", "/a/", "b" },
                { "//a//b", "//a//", "b" }, { "/...", "/", "..." },  { "/", NULL, NULL },
                { "//", NULL, NULL },       { "/a/..", NULL, NULL }, { "/a/./", NULL, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *parent = NULL, *name = NULL;

                ASSERT_EQ(file_path_split(cases[i].path, &parent, &name), cases[i].name ? 0 : -EINVAL);
                ASSERT_STREQ(parent, cases[i].parent);
                ASSERT_STREQ(name, cases[i].name);
        }
}

TEST(join) {
        static const char *const cases[][3] = {
                { "/", "x", "/x" }, { "/a", "x", "/a/x" }, { "/a//", "x", "/a/x" }, { "//", "\n", "/\n" }
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *path = file_path_join(cases[i][0], cases[i][1]);

                ASSERT_STREQ(path, cases[i][2]);
        }
}

TEST(permissions) {
        static const struct {
                mode_t mode;
                const char *text;
        } cases[] = {
                { S_IFREG | 0644, "-rw-r--r--" },
                { S_IFDIR | 01777, "drwxrwxrwx" },
                { S_IFLNK | 0777, "Lrwxrwxrwx" },
                { S_IFBLK | 0060, "b---rw----" },
                { S_IFCHR, "c---------" },
                { S_IFIFO | 01, "p--------x" },
                { S_IFSOCK | 0700, "Srwx------" },
                { S_IFREG | 06755, "-rwxr-xr-x" },
                { 0400, "?r--------" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char text[FILE_PERMISSIONS_LEN];

                file_permissions(cases[i].mode, text);
                ASSERT_STREQ(text, cases[i].text);
        }
}

TEST(faults) {
        static const struct {
                int error;
                bool making;
                FaultCode code;
                const char *message;
        } cases[] = {
                { ENOENT, false, FAULT_NOT_FOUND, "Cannot read '/x': no such file or directory." },
                { ENOTDIR, false, FAULT_NOT_FOUND,
                  "Cannot read '/x': a component of the path is no directory." },
                { ENOTDIR, true, FAULT_INVALID_ARGS,
                  "Cannot read '/x': a component of the path is no directory." },
                { EISDIR, false, FAULT_INVALID_ARGS, "Cannot read '/x': it is a directory." },
                { ENOSPC, true, FAULT_AGENT_NO_SPACE, "Cannot read '/x': the capsule's disk is full." },
                { EDQUOT, true, FAULT_AGENT_NO_SPACE,
                  "Cannot read '/x': the user's quota in the capsule is used up." },
                { EFBIG, true, FAULT_TOO_LARGE,
                  "Cannot read '/x': the file system has no files that large." },
                { EROFS, true, FAULT_AGENT, "Cannot read '/x': Read-only file system." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                ASSERT_EQ(file_fault(&fault, -cases[i].error, cases[i].making, "read", "/x"),
                          fault_errno(cases[i].code));
                ASSERT_FAULT(fault, cases[i].code, cases[i].message);
        }
}

TEST(modes_of_a_query) {
        static const struct {
                const char *path;
                int r;
                mode_t mode;
        } cases[] = {
                { "/f?mode=0644", 0, 0644 },
                { "/f?mode=7777", 0, 07777 },
                { "/f", 0, 0123 },
                { "/f?mode=", -EINVAL, 0 },
                { "/f?mode=8", -EINVAL, 0 },
                { "/f?mode=10000", -EINVAL, 0 },
                { "/f?mode=0000000000000000000000644", 0, 0644 },
                { "/f?mode=-1", -EINVAL, 0 },
                { "/f?mode=77777777777777777777777", -EINVAL, 0 },
                { "/f?mode=%37", 0, 07 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                mode_t mode;

                ASSERT_EQ(request_parse_mode(cases[i].path, "mode", 0123, &mode), cases[i].r);
                if (cases[i].r >= 0)
                        ASSERT_EQ(mode, cases[i].mode);
        }
}

typedef struct Place {
        char path[64];
        int fd;
} Place;

static void place_make(Place *p) {
        (void) snprintf(p->path, sizeof(p->path), "/tmp/agent-files-XXXXXX");
        assert(mkdtemp(p->path));
        p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert(p->fd >= 0);
}

static void place_done(Place *p) {
        p->fd = close_fd(p->fd);
        ASSERT_OK(remove_tree_at(AT_FDCWD, p->path));
}

static unsigned count_lines(const char *text) {
        unsigned n = 0;

        for (; (text = strchr(text, '\n')); text++)
                n++;
        return n;
}

TEST(listing_is_bounded) {
        _cleanup_close_ int output = memfd_create("list", MFD_CLOEXEC);
        FileListing listing = { .depth = 1, .entries_max = 10 };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = NULL;
        char name[16];
        Place p;

        place_make(&p);
        listing.path = p.path;
        for (unsigned i = 0; i < 10; i++) {
                (void) snprintf(name, sizeof(name), "%u", i);
                ASSERT_OK(mkdirat(p.fd, name, 0700));
        }
        ASSERT_OK(file_list_main(&listing, -EBADF, output, &fault));
        ASSERT_EQ(lseek(output, 0, SEEK_SET), 0);
        ASSERT_OK(read_fd(output, 1 * MIB, &text, NULL));
        ASSERT_EQ(count_lines(text), 10);
        ASSERT_NULL(strstr(text, "error"));

        ASSERT_OK(mkdirat(p.fd, "0/more", 0700));
        listing.depth = 2;
        ASSERT_EQ(ftruncate(output, 0), 0);
        ASSERT_EQ(lseek(output, 0, SEEK_SET), 0);
        ASSERT_OK(file_list_main(&listing, -EBADF, output, &fault));
        ASSERT_EQ(lseek(output, 0, SEEK_SET), 0);
        text = (free(text), NULL);
        ASSERT_OK(read_fd(output, 1 * MIB, &text, NULL));
        ASSERT_EQ(count_lines(text), 11);
        ASSERT_NOT_NULL(strstr(text,
                               "\n{\"error\":{\"code\":\"too-large\",\"message\":\"More than 10 entries; "
                               "list a directory below, or with less depth.\"}}\n"));
        place_done(&p);
}

TEST(removal) {
        _cleanup_free_ char *link = NULL, *tree = NULL;
        Place p;

        place_make(&p);
        link = strjoin(p.path, "/link//");
        tree = strjoin(p.path, "/tree");
        ASSERT_OK(mkdirat(p.fd, "tree", 0700));
        ASSERT_OK(mkdirat(p.fd, "tree/sub", 0));
        ASSERT_OK(symlinkat("tree", p.fd, "link"));
        ASSERT_OK(file_remove_main(link, -EBADF, -EBADF, NULL));
        ASSERT_EQ(faccessat(p.fd, "link", F_OK, AT_SYMLINK_NOFOLLOW), -1);
        ASSERT_OK(faccessat(p.fd, "tree/sub", F_OK, 0));
        ASSERT_OK(file_remove_main(tree, -EBADF, -EBADF, NULL));
        ASSERT_EQ(file_remove_main(tree, -EBADF, -EBADF, NULL), -ENOENT);
        place_done(&p);
}

/* A file that comes to stand in the way between the beginning and the end of an upload. */
TEST(upload) {
        const User me = { .uid = getuid(), .gid = getgid() };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        FileUpload f = FILE_UPLOAD_NULL;
        _cleanup_free_ char *path = NULL, *text = NULL;
        Place p;

        place_make(&p);
        path = strjoin(p.path, "/a/b");
        ASSERT_OK(file_upload_begin(path, 0640, &me, &f, &fault));
        ASSERT_OK(file_upload_write(&f, "new", 3, &fault));
        ASSERT_EQ(faccessat(p.fd, "a/b", F_OK, 0), -1);
        ASSERT_OK(mkdirat(p.fd, "a/b", 0700));
        ASSERT_EQ(file_upload_end(&f, &fault), -EINVAL);
        ASSERT_STREQ(strchr(fault.message, ':'), ": it is a directory.");
        ASSERT_OK(unlinkat(p.fd, "a/b", AT_REMOVEDIR));
        ASSERT_OK(file_upload_end(&f, NULL));
        file_upload_done(&f);
        ASSERT_OK(read_file_at(p.fd, "a/b", 100, &text, NULL));
        ASSERT_STREQ(text, "new");

        path = (free(path), strjoin(p.path, "/a/c"));
        ASSERT_OK(file_upload_begin(path, 0640, &me, &f, NULL));
        file_upload_done(&f);
        ASSERT_OK(unlinkat(p.fd, "a/b", 0));
        ASSERT_OK(unlinkat(p.fd, "a", AT_REMOVEDIR)); /* nothing is left of the other */
        place_done(&p);
}
