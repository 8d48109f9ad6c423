# Apache Kafka from its Maven jars, where the official image cannot be fetched. For tests only.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --no-create-home kafka \
    && install -d -o kafka /var/lib/kafka/data
COPY jars /opt/kafka
COPY kafka-entrypoint.sh /usr/local/bin/
USER kafka
VOLUME /var/lib/kafka/data
STOPSIGNAL SIGTERM
ENTRYPOINT ["kafka-entrypoint.sh"]
