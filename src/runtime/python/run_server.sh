# Becomes the function server on the port that is the first argument.
here="${0%/*}"
# The interpreter never caches the compiled form of a program, only of modules: the image brings it.
if [ -f "$here/server.pyc" ]; then
    exec python3 -s -u "$here/server.pyc" "${1:-9000}"
fi
exec python3 -s -u "$here/server.py" "${1:-9000}"
