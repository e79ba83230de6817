/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who a process of the API runs as: the guest's own /etc/passwd and /etc/group, read as text. The agent is
 * static, so there is no NSS, and a file system without these files still has root.
 */

#include <sys/stat.h>

#include "basic/fault.h"
#include "basic/macro.h"

#define USER_GROUPS_MAX 256U
#define USER_FILE_MAX   (1 * MIB) /* /etc/passwd, /etc/group */

typedef struct User {
        char *name, *home, *shell;
        uid_t uid;
        gid_t gid;
        gid_t groups[USER_GROUPS_MAX]; /* gid is the first */
        size_t n_groups;
} User;

#define USER_NULL ((User) {})

/* The user asked for last, good as long as neither file has changed: most requests are for the same one. */
typedef struct UserCache {
        User user;
        char *name;                 /* as asked for; NULL: empty */
        struct timespec changed[2]; /* ctime of /etc/passwd, /etc/group; zero: not there */
        ino_t inode[2];
} UserCache;

void user_cache_done(UserCache *c);

void user_done(User *u);

/* Finds name (or a decimal uid) in the text of passwd(5). -ENOENT, -ENOMEM. Bad lines are skipped. groups:
 * the gid only. */
int user_parse_passwd(const char *text, const char *name, User *ret);
/* Adds the groups of group(5) that have u's name as a member, up to USER_GROUPS_MAX. */
void user_parse_group(const char *text, User *u);

/*
 * Both from the guest's files. FAULT_INVALID_ARGS when there is no such user; "root" always exists. ret: the
 * cache's, valid until the next call.
 */
int user_find(UserCache *c, const char *name, const User **ret, Fault *reterr);

/* Names by number: both files read once, for listings. */
typedef struct UserNames UserNames;

UserNames* user_names_new(void); /* NULL on out of memory; files that cannot be read have no names */
UserNames* user_names_free(UserNames *names);
DEFINE_CLEANUP(UserNames, user_names_free)
/* Of text in the form of passwd(5) or group(5): the first name of each number. -ENOMEM. For tests. */
int user_names_parse(UserNames *names, bool groups, const char *text);
/* The number itself where it has no name. Borrowed until the next call of the same function. */
const char* user_names_user(UserNames *names, uid_t uid);
const char* user_names_group(UserNames *names, gid_t gid);
