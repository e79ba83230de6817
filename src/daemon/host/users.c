/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "basic/strings.h"
#include "daemon/host/users.h"

char* user_name(uid_t uid) {
        struct passwd *pw;
        char *name = NULL;
        FILE *f;

        f = fopen("/etc/passwd", "re");
        while (f && !name && (pw = fgetpwent(f)))
                if (pw->pw_uid == uid)
                        name = strdup(pw->pw_name);
        if (f)
                (void) fclose(f);
        return name ?: asprintf_null("%u", uid);
}
