/* Uses the structs of docs/ioctl.md as a program in C would: cachectl COMMAND FILE [VARIANT]. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "awayfs_ioctl.h"

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int state(int fd)
{
    struct awayfs_state it = {{0}};
    if (ioctl(fd, AWAYFS_IOC_STATE, &it))
        return fail("state");
    printf("flags=%u mode=%u size=%llu cached=%llu pin=%d variants=%u\n", it.flags, it.mode,
           (unsigned long long)it.size, (unsigned long long)it.cached, it.pin, it.variants);
    return 0;
}

static int pin(int fd)
{
    struct awayfs_pin it = {{0}};
    it.priority = 42;
    return ioctl(fd, AWAYFS_IOC_PIN, &it) ? fail("pin") : 0;
}

static int named(int fd, unsigned long number, const char *what)
{
    struct awayfs_name it = {{0}};
    return ioctl(fd, number, &it) ? fail(what) : 0;
}

static int variants(int fd)
{
    struct awayfs_variants it = {{0}};
    if (ioctl(fd, AWAYFS_IOC_VARIANTS, &it))
        return fail("variants");
    for (int which = 0; which < 4; which++)
        if (it.present >> which & 1)
            printf("%d size=%llu mode=%o whole=%u\n", which,
                   (unsigned long long)it.variant[which].size, it.variant[which].mode,
                   it.whole >> which & 1);
    return 0;
}

/* Has fd be a descriptor of another variant, as the page says; root is the mount's root. */
static int switch_to(int fd, const char *root, unsigned which)
{
    struct awayfs_open it = {{0}};
    int top, found;
    it.variant = which;
    if (ioctl(fd, AWAYFS_IOC_OPEN_VARIANT, &it))
        return -1;
    top = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return -1;
    found = openat(top, it.path, O_RDONLY | O_CLOEXEC);
    close(top);
    if (found < 0 || dup2(found, fd) < 0)
        return -1;
    return close(found);
}

static int show(int fd, const char *root, unsigned which)
{
    char buffer[4096];
    ssize_t size;
    if (switch_to(fd, root, which))
        return fail("switch");
    while ((size = read(fd, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, size) != size)
            return fail("write");
    return size < 0 ? fail("read") : 0;
}

int main(int argc, char **argv)
{
    int fd = argc > 2 ? open(argv[2], O_RDONLY | O_NONBLOCK) : -1;
    if (fd < 0)
        return fail("open");
    if (!strcmp(argv[1], "state"))
        return state(fd);
    if (!strcmp(argv[1], "pin"))
        return pin(fd);
    if (!strcmp(argv[1], "unpin"))
        return named(fd, AWAYFS_IOC_UNPIN, "unpin");
    if (!strcmp(argv[1], "fetch"))
        return named(fd, AWAYFS_IOC_FETCH, "fetch");
    if (!strcmp(argv[1], "variants"))
        return variants(fd);
    if (!strcmp(argv[1], "show") && argc > 4)
        return show(fd, argv[3], atoi(argv[4]));
    return 2;
}
