/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/users.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"

void user_done(User *u) {
        free(u->name);
        free(u->home);
        free(u->shell);
        *u = USER_NULL;
}

/* Cuts line at its colons, in place. The number of fields, at most max. */
static size_t split_fields(char *line, char **fields, size_t max) {
        size_t n = 0;

        for (char *p = line; n < max;) {
                char *colon = strchr(p, ':');

                fields[n++] = p;
                if (!colon)
                        break;
                if (n < max)
                        *colon = '\0';
                p = colon + 1;
        }

        return n;
}

/* The next line of *text without its newline, a copy; NULL at the end or out of memory. */
static char* next_line(const char **text) {
        const char *end;
        char *line;

        if (!**text)
                return NULL;

        end = strchrnul(*text, '\n');
        line = strndup(*text, (size_t) (end - *text));
        *text = *end ? end + 1 : end;
        return line;
}

/* 1 when the line is the user's; 0 when it is another's or bad. */
static int user_from_line(char *line, const char *name, bool by_uid, User *ret) {
        char *fields[7];
        uint32_t uid, gid;
        size_t n_fields;

        n_fields = split_fields(line, fields, ELEMENTSOF(fields));
        if (n_fields < 6)
                return 0;
        if (!streq(fields[by_uid ? 2 : 0], name) || isempty(fields[0]))
                return 0;
        if (parse_u32(fields[2], &uid) < 0 || parse_u32(fields[3], &gid) < 0)
                return 0;
        if (uid == UINT32_MAX || gid == UINT32_MAX)
                return 0;

        *ret = (User) { .uid = uid, .gid = gid, .groups = { gid }, .n_groups = 1 };
        ret->name = strdup(fields[0]);
        ret->home = strdup(fields[5][0] == '/' ? fields[5] : "/");
        ret->shell = strdup(n_fields > 6 && fields[6][0] == '/' ? fields[6] : "/bin/sh");
        if (!ret->name || !ret->home || !ret->shell) {
                user_done(ret);
                return -ENOMEM;
        }

        return 1;
}

int user_parse_passwd(const char *text, const char *name, User *ret) {
        bool is_number = name[0] && name[strspn(name, "0123456789")] == '\0';

        for (int by_uid = 0; by_uid <= is_number; by_uid++) {
                const char *p = text;

                for (;;) {
                        _cleanup_free_ char *line = next_line(&p);
                        int r;

                        if (!line)
                                break;
                        r = user_from_line(line, name, by_uid, ret);
                        if (r != 0)
                                return r < 0 ? r : 0;
                }
        }

        return -ENOENT;
}

static bool list_contains(char *list, const char *name) {
        char *state = NULL;

        for (char *s = strtok_r(list, ",", &state); s; s = strtok_r(NULL, ",", &state))
                if (streq(s, name))
                        return true;

        return false;
}

static void user_add_group(User *u, gid_t gid) {
        for (size_t i = 0; i < u->n_groups; i++)
                if (u->groups[i] == gid)
                        return;

        if (u->n_groups < USER_GROUPS_MAX)
                u->groups[u->n_groups++] = gid;
}

void user_parse_group(const char *text, User *u) {
        for (;;) {
                _cleanup_free_ char *line = next_line(&text);
                char *fields[4];
                uint32_t gid;

                if (!line)
                        return;
                if (split_fields(line, fields, ELEMENTSOF(fields)) == 4 && parse_u32(fields[2], &gid) >= 0 &&
                    gid != UINT32_MAX && list_contains(fields[3], u->name))
                        user_add_group(u, gid);
        }
}

/* A FIFO or device put in the file's place must not stop us. */
static int read_etc(const char *path, char **ret) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;

        return read_fd(fd, USER_FILE_MAX, ret, /* ret_n= */ NULL);
}

static int user_root(User *ret) {
        *ret = (User) { .n_groups = 1 };
        ret->name = strdup("root");
        ret->home = strdup("/root");
        ret->shell = strdup("/bin/sh");
        if (!ret->name || !ret->home || !ret->shell) {
                user_done(ret);
                return -ENOMEM;
        }

        return 0;
}

static int user_load(const char *name, User *ret, Fault *reterr) {
        _cleanup_free_ char *passwd = NULL, *group = NULL;
        int r;

        r = read_etc("/etc/passwd", &passwd);
        if (r >= 0)
                r = user_parse_passwd(passwd, name, ret);
        if (r < 0 && r != -ENOMEM && (streq(name, "root") || streq(name, "0")))
                r = user_root(ret);
        if (r == -ENOMEM)
                return fault_set_errno(reterr, r, "Cannot look up the user");
        if (r < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "No user '%s' in this capsule.", name);

        if (read_etc("/etc/group", &group) >= 0)
                user_parse_group(group, ret);
        return 0;
}

void user_cache_done(UserCache *c) {
        user_done(&c->user);
        free(c->name);
        *c = (UserCache) {};
}

static bool is_settled(const struct timespec *changed) {
        struct timespec now;

        return clock_gettime(CLOCK_REALTIME, &now) >= 0 && changed->tv_sec + 1 < now.tv_sec;
}

int user_find(UserCache *c, const char *name, const User **ret, Fault *reterr) {
        static const char *const files[] = { "/etc/passwd", "/etc/group" };
        UserCache fresh = {};
        bool same = streq_ptr(c->name, name);
        int r;

        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                struct stat st;

                if (stat(files[i], &st) >= 0) {
                        fresh.changed[i] = st.st_ctim;
                        fresh.inode[i] = st.st_ino;
                }
                same = same && fresh.inode[i] == c->inode[i] &&
                       fresh.changed[i].tv_sec == c->changed[i].tv_sec &&
                       fresh.changed[i].tv_nsec == c->changed[i].tv_nsec;
        }

        if (!same) {
                r = user_load(name, &fresh.user, reterr);
                if (r < 0)
                        return r;

                user_cache_done(c);
                *c = fresh;
                /* Without a name the next request looks again: a file just written may be written again
                 * within its time stamp. */
                if (is_settled(&c->changed[0]) && is_settled(&c->changed[1]))
                        c->name = strdup(name);
        }

        *ret = &c->user;
        return 0;
}
