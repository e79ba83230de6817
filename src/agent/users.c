/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>
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

/* names by number */

typedef struct IdName {
        uint32_t id;
        size_t order; /* in the file: the first of a number counts */
        char *name;
} IdName;

typedef struct IdTable {
        IdName *items; /* sorted by id, order */
        size_t n_items, n_allocated;
        char number[16]; /* text of an id without a name */
} IdTable;

struct UserNames {
        IdTable tables[2]; /* users, groups */
};

static int id_name_compare(const void *a, const void *b) {
        const IdName *x = a, *y = b;

        if (x->id != y->id)
                return x->id < y->id ? -1 : 1;
        return x->order < y->order ? -1 : x->order > y->order;
}

static int id_table_add(IdTable *t, uint32_t id, const char *name) {
        if (t->n_items == t->n_allocated) {
                size_t n = MAX(2 * t->n_allocated, (size_t) 64);
                IdName *items = reallocarray(t->items, n, sizeof(IdName));

                if (!items)
                        return -ENOMEM;
                t->items = items;
                t->n_allocated = n;
        }

        t->items[t->n_items] = (IdName) { .id = id, .order = t->n_items, .name = strdup(name) };
        if (!t->items[t->n_items].name)
                return -ENOMEM;
        t->n_items++;
        return 0;
}

int user_names_parse(UserNames *names, bool groups, const char *text) {
        IdTable *t = &names->tables[groups];
        int r;

        for (;;) {
                _cleanup_free_ char *line = next_line(&text);
                char *fields[4];
                uint32_t id;

                if (!line)
                        break;
                if (split_fields(line, fields, ELEMENTSOF(fields)) < 3 || isempty(fields[0]) ||
                    parse_u32(fields[2], &id) < 0)
                        continue;

                r = id_table_add(t, id, fields[0]);
                if (r < 0)
                        return r;
        }

        if (t->n_items > 0)
                qsort(t->items, t->n_items, sizeof(IdName), id_name_compare);
        return 0;
}

UserNames* user_names_new(void) {
        static const char *const files[] = { "/etc/passwd", "/etc/group" };
        UserNames *names = calloc(1, sizeof(UserNames));

        for (size_t i = 0; names && i < ELEMENTSOF(files); i++) {
                _cleanup_free_ char *text = NULL;

                if (read_etc(files[i], &text) >= 0 && user_names_parse(names, i > 0, text) < 0)
                        return user_names_free(names);
        }

        return names;
}

UserNames* user_names_free(UserNames *names) {
        if (!names)
                return NULL;

        for (size_t i = 0; i < ELEMENTSOF(names->tables); i++) {
                for (size_t k = 0; k < names->tables[i].n_items; k++)
                        free(names->tables[i].items[k].name);
                free(names->tables[i].items);
        }
        free(names);
        return NULL;
}

static const char* id_table_find(IdTable *t, uint32_t id) {
        size_t low = 0, high = t->n_items;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (t->items[middle].id < id)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low < t->n_items && t->items[low].id == id)
                return t->items[low].name;

        (void) snprintf(t->number, sizeof(t->number), "%u", id);
        return t->number;
}

const char* user_names_user(UserNames *names, uid_t uid) {
        return id_table_find(&names->tables[0], uid);
}

const char* user_names_group(UserNames *names, gid_t gid) {
        return id_table_find(&names->tables[1], gid);
}
